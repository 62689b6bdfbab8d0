"""Private federated fine-tuning of language models: LoRA with user-level differential privacy."""

from pathlib import Path

# A Flower bundle drops links: there the five folders lie beside this one. What a bundle leaves out
# (the demo's model) is the installed package's.
if not (Path(__file__).parent / "common").is_dir():
    from pkgutil import extend_path

    __path__.append(str(Path(__file__).parents[1]))
    __path__ = extend_path(__path__, __name__)
