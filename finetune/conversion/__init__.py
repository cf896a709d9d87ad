"""A merged model in other forms.

gguf_file.py       GGUF for llama.cpp and what is built on it: Llama and Mistral, byte-level BPE
gguf_tokenizer.py  its tokenizer's fields
onnx_file.py       ONNX: token ids and mask to logits, without a cache
"""
