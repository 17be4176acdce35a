"""The section ``quality``: what each way to keep weights and cache costs, on real text.

The texts and modes are those of `quality`. The model is SmolLM2 where its package is installed, or
the one that ``--model`` names; else a small one is trained on the spot.
"""

import argparse
import tempfile

import quality

from engine.catalog import BUILTIN
from engine.errors import EngineError
from gpu.rows import Section, said
from gpu.trained import train

TOKENS = 20_000


def run(section: Section, model: str | None = None) -> None:
    """A row a mode."""
    with tempfile.TemporaryDirectory() as folder:
        if model is None and BUILTIN["smollm2"].find() is not None and not section.dry:
            model = "smollm2"
        if model is None:
            said_of = train(folder, section.torch_device.type, seconds=min(25.0, section.left / 2))
            section.row(mode="model", note=said_of)
            model = folder
        names = [name for name in quality.GPU_MODES if section.wants(name)]
        tallies: dict[str, quality.Tally] = {}
        for name in names[:2] if section.dry else names:
            if not section.begins(name, needs=5.0):
                continue
            arguments = argparse.Namespace(
                model=model,
                modes=[name],
                tokens=300 if section.dry else TOKENS,
                device=section.device,
            )
            try:
                tallies |= quality.measure(arguments)
            except EngineError as error:
                section.row(mode=name, note=f"refused: {said(error)}")
                continue
            except Exception as error:  # noqa: BLE001, the other modes are to be tried
                section.failed(error, mode=name)
                continue
            tally, base = tallies[name], tallies[quality.REFERENCE]
            section.row(
                mode=name,
                perplexity=f"{tally.perplexity:.3f}",
                change=f"{tally.perplexity / base.perplexity - 1:+.2%}",
                KL=f"{tally.divergence / tally.tokens:.5f}",
                same=f"{tally.agreed / tally.tokens:.1%}",
            )
    section.end(mode="skipped")
