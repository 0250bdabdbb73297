"""GeneralModelService: what it answers, and that each malformed request is refused by the name of the field."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any, Callable

import numpy as np
import pytest

from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.paddle_serving.general_model import infer
from paddle_ranker.paddle_serving.messages import messages
from paddle_ranker.serving.core.faults import INVALID, Fault
from tests.fake_service import FakeService, logit_of, logits_of_tokens

pytestmark = pytest.mark.unit
IDS = np.array([[1, 5, 7, 2], [1, 9, 2, 0]])
TYPES = np.array([[0, 0, 1, 1], [0, 1, 1, 0]])


def tokens(**fields: Any) -> Any:
    request = messages().Request(**fields)
    for name, array in (("input_ids", IDS), ("token_type_ids", TYPES)):
        request.tensor.add(name=name, alias_name=name, shape=array.shape, int64_data=array.ravel().tolist())
    return request


def texts(queries: list[str], titles: list[str]) -> Any:
    request = messages().Request()
    request.tensor.add(name="query", elem_type=20, data=queries)
    request.tensor.add(alias_name="title", elem_type=20, data=titles, shape=[len(titles), 1])
    return request


def answer(request: Any) -> Any:
    return asyncio.run(infer(request, FakeService()))


def column(response: Any, place: int = 0) -> list[float]:
    return list(response.outputs[0].tensor[place].float_data)


def test_the_response_is_made_as_the_vendor_s_server_makes_it() -> None:
    response = answer(tokens(log_id=12))
    assert response.log_id == 12 and (response.err_no, response.err_msg) == (0, "")
    (output,) = response.outputs
    assert output.engine_name == "GeneralInferOp_0"
    (tensor,) = output.tensor
    assert (tensor.name, tensor.alias_name) == ("sigmoid_2.tmp_0", "predict")
    assert (tensor.elem_type, list(tensor.shape)) == (1, [2, 1])
    assert np.array_equal(column(response), sigmoid(logits_of_tokens(IDS, TYPES)).astype(np.float32))
    assert list(response.profile_time) == []
    times = list(answer(tokens(profile_server=True)).profile_time)
    assert len(times) == 6 and times == sorted(times)


def test_outputs_come_as_asked_by_name_or_alias() -> None:
    logits = logits_of_tokens(IDS, TYPES).astype(np.float32)
    response = answer(tokens(fetch_var_names=["logit", "sigmoid_2.tmp_0"]))
    assert [tensor.alias_name for tensor in response.outputs[0].tensor] == ["logit", "predict"]
    assert column(response) == logits.tolist()
    assert column(response, 1) == column(answer(tokens(fetch_var_names=["predict"])))


def clear(request: Any, place: int) -> None:
    del request.tensor[place]


def change_to_content(dtype: str, elem_type: int) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        for tensor, array in zip(request.tensor, (IDS, TYPES)):
            del tensor.int64_data[:]
            tensor.elem_type, tensor.tensor_content = elem_type, array.astype(dtype).tobytes()

    return change


def change_to_int32(request: Any) -> None:
    for tensor in request.tensor:
        tensor.int_data.extend(tensor.int64_data)
        del tensor.int64_data[:]
        tensor.elem_type = 2


def change_names(request: Any) -> None:
    request.tensor[0].name, request.tensor[1].alias_name = "feed_0", "feed_1"


def test_texts_in() -> None:
    titles = ["a", "abc", ""]
    for queries in (["ab"], ["ab", "ab", "ab"]):
        expected = sigmoid([logit_of("ab", title) for title in titles]).astype(np.float32)
        assert column(answer(texts(queries, titles))) == expected.tolist()


def content(request: Any) -> None:
    request.tensor[0].ClearField("int64_data")
    request.tensor[0].tensor_content = bytes(63)


Change = Callable[[Any], Any]
MALFORMED: list[tuple[Any, Change, str]] = [  # a request, what is done to it, and why it is refused
    *[
        (tokens(), change, words)
        for change, words in (
            (lambda r: clear(r, 1), "tensor: lacks token_type_ids; there is input_ids"),
            (lambda r: r.ClearField("tensor"), "tensor: lacks input_ids and token_type_ids; there is nothing"),
            (lambda r: r.tensor.add().CopyFrom(r.tensor[0]), r"tensor\[2\].name: input_ids is there twice"),
            (lambda r: r.tensor.add(name="position_ids"), r"tensor\[2\].name: 'position_ids' or '' is not an input"),
            (lambda r: r.tensor.add(name="title"), "input_ids, token_type_ids, title: send tokens or texts"),
            (lambda r: r.fetch_var_names.append("softmax"), r"fetch_var_names\[0\]: 'softmax' is not an output"),
            (lambda r: r.fetch_var_names.extend(["predict", "sigmoid_2.tmp_0"]), r"names\[1\]: .* asked for twice"),
            (lambda r: r.tensor[0].shape.append(1), r"tensor\[0\] \(input_ids\).shape: is \[2, 4, 1\], expected"),
            (lambda r: r.tensor[0].ClearField("shape"), r"tensor\[0\] \(input_ids\).shape: is \[\], expected"),
            (lambda r: r.tensor[0].shape.__setitem__(0, 3), r"shape: \[3, 4\] does not match 8 elements"),
            (lambda r: r.tensor[0].shape.__setitem__(0, -2), r"shape: is \[-2, 4\], expected at least one pair"),
            (lambda r: r.tensor[0].shape.__setitem__(0, 0), r"shape: is \[0, 4\], expected at least one pair"),
            (lambda r: r.tensor[0].shape.__setitem__(slice(0, 2), [2**31 - 1] * 2), "does not match 8 elements"),
            (lambda r: r.tensor[1].shape.__setitem__(slice(0, 2), [4, 2]), r"\[4, 2\], that of input_ids is \[2, 4\]"),
            (lambda r: setattr(r.tensor[0], "elem_type", 1), r"elem_type: is 1, expected 0 \(int64\) or 2 \(int32\)"),
            (lambda r: setattr(r.tensor[0], "elem_type", 2), r"\.int64_data: holds data, which .* has in int_data"),
            (lambda r: r.tensor[0].lod.append(0), r"\.lod: is not for this model"),
            (lambda r: r.tensor[0].float_data.append(1), r"\.float_data: holds data, and int64_data does too"),
            (lambda r: r.tensor[0].ClearField("int64_data"), r"\.int64_data: holds no data"),
            (lambda r: r.tensor[0].int64_data.__setitem__(0, 100), "input_ids: 100 is no id of the vocabulary"),
            (content, "tensor_content: has 63 bytes, elements of 8 bytes do not fill them"),
        )
    ],
    (texts(["a", "b"], ["x"]), bool, r"tensor\[0\] \(query\).data: holds 2 texts and title 1: send one query"),
    (texts([], ["x"]), bool, r"tensor\[0\] \(query\).data: holds no data"),
    (texts(["a"], []), bool, r"tensor\[1\] \(title\).data: holds no data"),
    (texts(["a"], ["b", "c"]), lambda r: r.tensor[1].shape.__setitem__(0, 3), r"\[3, 1\] does not match 2 texts"),
    (texts(["a"], ["b"]), lambda r: setattr(r.tensor[1], "elem_type", 0), r"elem_type: is 0, expected 20 \(string\)"),
]


@pytest.mark.parametrize(("request_", "change", "words"), MALFORMED)
def test_malformed_tensors_are_refused_by_name(request_: Any, change: Change, words: str) -> None:
    change(request_)
    with pytest.raises(Fault, match=words) as caught:
        answer(request_)
    assert caught.value.kind is INVALID


@pytest.mark.parametrize(
    "change", [change_to_content("<i8", 0), change_to_content("<i4", 2), change_to_int32, change_names]
)
def test_the_same_ids_in_other_fields_give_the_same(change: Change) -> None:
    request = tokens()
    change(request)
    assert column(answer(request)) == column(answer(tokens()))


def test_an_export_may_have_given_aliases() -> None:
    service = FakeService()
    aliases = {"input_ids": "ids", "token_type_ids": "types", "sigmoid_2.tmp_0": "p"}
    service.info = dataclasses.replace(service.info, export={"aliases": aliases})
    request = messages().Request(fetch_var_names=["p"])
    for name, array in (("ids", IDS), ("types", TYPES)):
        request.tensor.add(alias_name=name, shape=array.shape, int64_data=array.ravel().tolist())
    for name in ("p", "predict", "sigmoid_2.tmp_0"):
        request.fetch_var_names[0] = name
        (tensor,) = asyncio.run(infer(request, service)).outputs[0].tensor
        assert (tensor.name, tensor.alias_name) == ("sigmoid_2.tmp_0", "p")
    assert len(column(asyncio.run(infer(tokens(fetch_var_names=["logit", "p"]), service)), 1)) == 2
    with pytest.raises(Fault, match="is asked for twice"):
        asyncio.run(infer(tokens(fetch_var_names=["p", "predict"]), service))
