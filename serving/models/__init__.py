"""Model weights: found, prepared and checked before an engine sees them.

    model = prepare("smollm2-135m", Home.from_env(), progress=print)
    model.path            # a directory of config.json, safetensors, tokenizer

A source is a built-in name, a local directory or a Hub id (`org/name`,
`org/name@revision`). Importing this package loads neither torch nor
transformers nor huggingface_hub.
"""

from serving.models.builtin import BUILTINS, Builtin
from serving.models.manifest import verify
from serving.models.source import NotPrepared, PreparedModel, prepare, resolve

__all__ = ["BUILTINS", "Builtin", "NotPrepared", "PreparedModel", "prepare", "resolve", "verify"]
