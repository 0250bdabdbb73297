"""The vendor's messages: reproducible, beside the vendor's own, and as JSON the way brpc writes it."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_ranker import protos
from paddle_ranker.paddle_serving import protos as serving_protos
from paddle_ranker.paddle_serving.json_messages import read_message, write_message
from paddle_ranker.paddle_serving.messages import messages, parse
from paddle_ranker.paddle_serving.pipeline import read_printed_dict
from paddle_ranker.serving.core.faults import Fault
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("folder", [protos.FOLDER, serving_protos.FOLDER], ids=["protos", "paddle_serving"])
def test_the_descriptors_are_what_protoc_makes_of_the_proto_files(folder: Path) -> None:
    pytest.importorskip("grpc_tools", reason="needs grpcio-tools, which the complete stack has")
    from paddle_ranker.protos.build_descriptors import compile_descriptors

    assert compile_descriptors(folder) == (folder / protos.DESCRIPTORS).read_bytes()


# Of Paddle Serving's messages, what is read; the others are for the vendor's own log.
@pytest.mark.parametrize(
    ("name", "read", "without_effect"),
    [
        ("predictor.general_model.Request", {"tensor", "fetch_var_names", "profile_server", "log_id"}, set()),
        ("pipeline_serving.Request", {"key", "value", "tensors", "name"}, {"method", "logid", "clientip"}),
    ],
)
def test_paddle_serving_s_fields_are_read(name: str, read: set[str], without_effect: set[str]) -> None:
    fields = serving_protos.serving_message(f"baidu.paddle_serving.{name}").DESCRIPTOR.fields_by_name
    assert set(fields) == read | without_effect
    written = "".join(path.read_text("utf-8") for path in serving_protos.FOLDER.parent.glob("*.py"))
    assert all(f".{field}" in written for field in read)


VENDOR = """
import collections, collections.abc
from paddle_ranker.paddle_serving.messages import messages
from {package}.proto import general_model_service_pb2 as general
import importlib.util, {package} as package
path = package.__path__[0] + "/pipeline/proto/pipeline_service_pb2.py"
spec = importlib.util.spec_from_file_location("vendor_pipeline", path)
pipeline = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pipeline)
pairs = [(pipeline.Request, messages().PipelineRequest), (pipeline.Response, messages().PipelineResponse)]
pairs += [(general.Request, messages().Request), (general.Response, messages().Response)]

def facts(descriptor, seen):
    if descriptor.full_name in seen:
        return []
    seen.add(descriptor.full_name)
    found = [
        (descriptor.full_name, f.number, f.name, f.type, f.label, f.message_type and f.message_type.full_name)
        for f in descriptor.fields
    ]
    for f in descriptor.fields:
        if f.message_type:
            found += facts(f.message_type, seen)
    return sorted(found, key=str)

for theirs, ours in pairs:
    assert facts(theirs.DESCRIPTOR, set()) == facts(ours.DESCRIPTOR, set()), ours

request = general.Request(log_id=3, fetch_var_names=["predict"])
request.tensor.add(name="x", shape=[1, 2], int64_data=[5, -6], tensor_content=b"z")
copied = messages().Request.FromString(request.SerializeToString())
assert general.Request.FromString(copied.SerializeToString()) == request
print("equal")
"""


@pytest.mark.parametrize("package", ["paddle_serving_client", "paddle_serving_server"])
def test_they_are_the_vendor_s_and_live_beside_them(package: str) -> None:
    if importlib.util.find_spec("paddle_serving_server") is None:  # importing it takes over signals and logs
        pytest.skip("needs the vendor's packages, which the complete stack has")
    script = VENDOR.format(package=package)
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.stdout.endswith("equal\n"), done.stderr


def test_bytes_that_are_no_message_are_a_fault() -> None:
    for data in (b"\xff", b"\x12\x01\xff", b"\x0a\x05ab", b"\x0c"):
        with pytest.raises(Fault, match=f"the {len(data)} bytes are not a baidu"):
            parse(messages().Request, data)


def request_of(text: str) -> object:
    return read_message(text.encode(), messages().Request)


def test_json_as_json2pb_reads_it() -> None:
    message = request_of(
        '{"tensor": [{"int64_data": [1, "7", -9223372036854775808], "float_data": [1, 2.5, "NaN", "-Infinity"], '
        '"float64_data": [1e300, -3e5], '
        '"bool_data": [true], "data": ["深"], "tensor_content": "AAH/", "name": "x", "shape": [], "elem_type": null}], '
        '"log_id": "18446744073709551615", "unknown": {"a": [1]}, "fetchVarNames": ["not the field\'s name"]}'
    )
    expected = messages().Request(log_id=2**64 - 1)
    tensor = expected.tensor.add(int64_data=[1, 7, -(2**63)], bool_data=[True], data=["深"], name="x")
    tensor.float64_data[:] = [1e300, -3e5]
    tensor.tensor_content = b"\x00\x01\xff"
    values = list(message.tensor[0].float_data)  # type: ignore[attr-defined]
    assert values[:2] == [1, 2.5] and math.isnan(values[2]) and values[3] == -math.inf
    del message.tensor[0].float_data[:]  # type: ignore[attr-defined]
    assert message == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"log_id": -1}', "log_id: is -1, expected an unsigned 64-bit integer"),
        ('{"log_id": true}', "log_id: is true, expected"),
        ('{"tensor": {}}', "tensor: is an object, expected an array"),
        ('{"tensor": [{}, {"shape": [1, 2147483648]}]}', r"tensor\[1\].shape\[1\]: is 2147483648, expected a 32-bit"),
        ('{"tensor": [{"int64_data": [1, null]}]}', r"tensor\[0\].int64_data\[1\]: is null"),
        ('{"tensor": [{"int64_data": [9223372036854775808]}]}', r"int64_data\[0\]: is 9223372036854775808"),
        ('{"tensor": [{"float_data": [1e39]}]}', r"float_data\[0\]: is 1e\+39, expected a number up to 3.4028"),
        ('{"tensor": [{"float_data": ["many"]}]}', r"float_data\[0\]: is the string 'many'"),
        ('{"tensor": [{"tensor_content": "?"}]}', r"tensor_content: is the string '\?', expected bytes in base64"),
        ('{"tensor": [{"name": "\\ud800"}]}', "is not JSON"),
        ('{"profile_server": 1}', "profile_server: is 1, expected true or false"),
        ('{"log_id": Infinity}', "is not JSON"),
    ],
)
def test_json_that_does_not_fit_is_refused_by_path(text: str, words: str) -> None:
    with pytest.raises(Fault, match=words):
        request_of(text)


def test_json_as_json2pb_prints_it() -> None:
    response = messages().Response(log_id=2**53 + 1)
    tensor = response.outputs.add(engine_name="e").tensor.add(float_data=[0.1, 1.0, math.nan], elem_type=0, data=["深"])
    tensor.tensor_content = b"\xff"
    # 0.1 as float32, widened; the number of 64 bits is no string; nothing unset; keys as in the .proto.
    assert write_message(response).decode() == (
        '{"outputs":[{"tensor":[{"float_data":[0.10000000149011612,1.0,"NaN"],"data":["深"],"tensor_content":"/w=="}],'
        '"engine_name":"e"}],"log_id":9007199254740993}'
    )
    written = json.loads(write_message(messages().PipelineResponse(), defaults=True))
    assert written == {"err_no": 0, "err_msg": "", "key": [], "value": [], "tensors": []}


TENSORS = st.fixed_dictionaries(
    {
        "int64_data": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
        "uint32_data": st.lists(st.integers(0, 2**32 - 1), max_size=4),
        "float_data": st.lists(st.floats(width=32, allow_nan=False), max_size=4),
        "float64_data": st.lists(st.floats(allow_nan=False), max_size=4),
        "bool_data": st.lists(st.booleans(), max_size=4),
        "data": st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
        "shape": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
        "name": st.text(st.characters(exclude_categories=["Cs"])),
        "tensor_content": st.binary(max_size=9),
    }
)


@settings(deadline=None)
@given(st.lists(TENSORS, max_size=2), st.integers(0, 2**64 - 1))
def test_json_there_and_back_and_as_google_s_own_parser_reads_it(tensors: list[dict], log_id: int) -> None:
    request = messages().Request(log_id=log_id)
    for fields in tensors:
        request.tensor.add(**fields)
    written = write_message(request)
    assert read_message(written, messages().Request).SerializeToString() == request.SerializeToString()
    parsed = json_format.Parse(written, messages().Request())
    assert parsed.SerializeToString(deterministic=True) == request.SerializeToString(deterministic=True)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.text(), st.text(), min_size=1))
def test_a_printed_dict_is_read_as_python_printed_it(values: dict[str, str]) -> None:
    assert read_printed_dict(f" {values}\n") == values


BROKEN = [
    "", "{", "{}x", "{'a'}", "{'a': 1}", "{'a': 'b'", "{'a': 'b'}}", "{'a' 'b'}", "{'a': 'b' 'c'}", "{'a': }",
    r"{'a': 'b\'}", r"{\'a': 'b'}", """{'a': "b'}""", r"{'a': '\q'}", r"{'a': '\U99999999'}",
]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_no_dict_of_strings_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_printed_dict(text)
