"""What others may import from `engine` and `tidemill`: exactly these names, each explained.

A change here is a change of the public interface, and belongs in CHANGELOG.md.
"""

import dataclasses
from types import ModuleType

import pytest

import engine
import tidemill
import tidemill.client
from engine import LLM, Completion, EngineConfig, EngineProcess, Output, Request, SamplingParams
from tidemill.client import Client, Upload

ENGINE = {
    "LLM",
    "Completion",
    "EngineConfig",
    "EngineError",
    "EngineProcess",
    "Output",
    "Request",
    "SamplingParams",
}
CLIENT = {"DEFAULT_URL", "Client", "Upload"}

METHODS: dict[type, str] = {
    LLM: "chat flush generate has_work info stats step submit tokenizer",
    EngineProcess: "alive cancel close flush pid poll spawn start stats submit",
    Client: (
        "batch batches cancel close create_batch delete_file download file models pause resume "
        "retries retry upload url watch"
    ),
    Upload: "chunks filename from_path",
}
FIELDS: dict[type, str] = {
    Request: "id prompt params salt continues",
    Output: "index token_ids text finish_reason logprobs",
    Completion: (
        "request_id prompt_token_ids outputs cached_tokens error error_code discarded_tokens "
        "prompt_logprobs prompt_start"
    ),
    SamplingParams: (
        "max_tokens min_tokens temperature top_k top_p min_p repetition_penalty presence_penalty "
        "frequency_penalty logit_bias seed stop include_stop_str_in_output stop_token_ids "
        "ignore_eos n logprobs skip_special_tokens best_of prompt_logprobs"
    ),
    EngineConfig: (
        "model device dtype quantization group_size symmetric block_size kv_cache_dtype "
        "kv_cache_bytes max_num_seqs max_batch_tokens max_model_len batching batch_size "
        "batch_timeout prefix_caching chunked_prefill output_reserve threads seed "
        "overlap graphs cascade warm_up control_tokens_in_messages keep_prepared_weights"
    ),
}


@pytest.mark.parametrize(("module", "names"), [(engine, ENGINE), (tidemill.client, CLIENT)])
def test_a_module_offers_exactly_these_names(module: ModuleType, names: set[str]) -> None:
    assert set(module.__all__) == names
    assert len(module.__all__) == len(names)
    for name in names:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


@pytest.mark.parametrize("name", sorted(f"engine.{x}" for x in ENGINE))
def test_engine_names_are_explained(name: str) -> None:
    _expect_docstring(getattr(engine, name.partition(".")[2]))


@pytest.mark.parametrize("cls", [*METHODS, *FIELDS], ids=lambda cls: cls.__name__)
def test_public_classes_are_explained(cls: type) -> None:
    _expect_docstring(cls)


def _expect_docstring(cls: type) -> None:
    text = vars(cls)["__doc__"]
    # Without one of its own a dataclass gets its signature.
    assert text, cls
    assert not text.startswith(f"{cls.__name__}("), cls


def test_the_version_is_a_name_of_the_package() -> None:
    assert tidemill.__version__[0].isdigit()
    assert tidemill.client.DEFAULT_URL.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_a_class_has_exactly_these_methods(cls: type) -> None:
    assert " ".join(sorted(name for name in vars(cls) if name[0] != "_")) == METHODS[cls]


@pytest.mark.parametrize("cls", FIELDS, ids=lambda cls: cls.__name__)
def test_a_value_has_exactly_these_fields_in_this_order(cls: type) -> None:
    assert " ".join(field.name for field in dataclasses.fields(cls)) == FIELDS[cls]
