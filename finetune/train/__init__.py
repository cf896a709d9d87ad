"""The training loop: a schedule of batches → adapter on a base model → steps → checkpoints.

schedule.py    which examples make which step: pure, from the data's content and the seed
batch.py       examples joined in one row of tokens, each isolated
attention.py   attention within each example only
projection.py  linear layers with their adapters, without copies
loss.py        losses from hidden states, without a table of logits
model.py       the base model in its precision, with an adapter
learner.py     model and loss as one module
validation.py  held-out loss
checkpoint.py  state on disk, whole or not at all
loop.py        the steps
"""
