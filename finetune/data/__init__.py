"""From files to token sequences with masks: read → check → tokenise → pack.

    checked = check(config.data)            # every bad row, no tokenizer loaded
    checked.require()                       # BadData, unless there is none
    chat = ChatTokenizer.load(folder)
    tokens = tokenise(config.data, chat)    # token-exact masks, over-long policy
    tokens.require()

Rows are read twice and never kept: `check` holds about 200 bytes a row (two digests and where
it stands), `tokenise` 5 bytes a token more, and both one row (`max_row_mib`) at a time. The
list of faults is kept whole.
"""
