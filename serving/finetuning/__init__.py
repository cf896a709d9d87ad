"""Fine-tuning jobs in the stack: queued, run as child processes, published as adapters.

`finetune` trains and knows nothing of this; this starts it and reads its run folder.
"""
