"""OpenAPI: what one served model takes and answers, for programs that write clients or tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.request import EARLIEST_US, LATEST_US, STAMP, Feature
from serving.reading import Names
from serving.tensors import OUTPUTS

Schema = dict[str, Any]

REFUSALS = {
    "400": "The request is not as the contract has it; the sentence names the field.",
    "404": "An entity whose features are to be looked up is not known.",
    "408": "The request did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is compressed.",
    "429": "Too many requests are worked on at once.",
    "431": "The headers are too large.",
    "500": "The model failed.",
    "503": "The server is stopping, or cannot answer in time.",
}
HEADERS = {
    "x-penstock-version": "The model version that answered.",
    "x-penstock-slot": "The slot that answered.",
    "x-request-id": "The id under which the prediction is logged: the request's own, or a new one.",
}
SOMETIMES = {
    "x-penstock-fallback": "What stood in for a part that could not answer.",
    "x-penstock-stale": "Features that were older than they may be.",
    "server-timing": "Where the time went, in milliseconds.",
}


def document(names: Names, *, name: str, version: str) -> Schema:
    """Return the document of one endpoint.

    Args:
        names: What its requests hold.
        name: Of the model, as it stands in its routes.
        version: Of the model.
    """
    schemas = {
        "Error": _object({"error": {"type": "string"}}),
        "V1Request": _v1_request(names),
        "V1Response": _v1_response(names),
        "V2Request": _v2_request(names),
        "V2Response": _v2_response(name),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{name}, served by Penstock", "version": version},
        "paths": {
            f"/v1/models/{name}:predict": {"post": _predict()},
            f"/v2/models/{name}/infer": {"post": _infer()},
            **_states(name),
        },
        "components": {"schemas": schemas},
    }


def _states(name: str) -> Schema:
    """Return the routes that say how things are."""
    ready = _object({"name": {"const": name}, "ready": {"type": "boolean"}})
    tensors = {"type": "array", "items": _metadata()}
    text = {"type": "string"}
    texts = {"type": "array", "items": text}
    told = {
        "/": _object({"status": {"const": "alive"}}),
        "/v1/models": _object({"models": texts}),
        f"/v1/models/{name}": ready,
        "/v2": _object({"name": text, "version": text, "extensions": texts}),
        "/v2/health/live": _object({"live": {"const": True}}),
        "/v2/health/ready": _object({"ready": {"const": True}}),
        "/v2/models": _object({"models": texts}),
        f"/v2/models/{name}": _object(
            {
                "name": {"const": name},
                "versions": texts,
                "platform": text,
                "inputs": tensors,
                "outputs": tensors,
            },
        ),
        f"/v2/models/{name}/ready": ready,
    }
    return {path: {"get": _operation(path, schema)} for path, schema in told.items()}


def _operation(path: str, schema: Schema) -> Schema:
    refused = {code: _refusal(code) for code in ("408", "431", "500", "503")}
    said = {"description": "Told.", "content": _json(schema)}
    return {"operationId": f"get {path}", "responses": {"200": said, **refused}}


def _predict() -> Schema:
    return {
        "operationId": "predict",
        "summary": "Predict rows by the first protocol: a list of instances.",
        "requestBody": {"required": True, "content": _json(_ref("V1Request"))},
        "responses": _answers(_json(_ref("V1Response"))),
    }


def _infer() -> Schema:
    return {
        "operationId": "infer",
        "summary": "Predict rows by the Open Inference Protocol: one tensor for each feature.",
        "description": (
            "With the header inference-header-content-length the body is that many bytes of JSON "
            "and then the numbers of the tensors that have a binary_data_size, in their order, "
            "lowest byte first. Outputs that are asked for with binary_data come in the same form."
        ),
        "requestBody": {"required": True, "content": _json(_ref("V2Request"))},
        "responses": _answers(
            {**_json(_ref("V2Response")), "application/octet-stream": {"schema": {}}}
        ),
    }


def _answers(content: Schema) -> Schema:
    always = {n: _header(text, required=True) for n, text in HEADERS.items()}
    sometimes = {n: _header(text, required=False) for n, text in SOMETIMES.items()}
    answered = {"description": "The answer.", "headers": always | sometimes, "content": content}
    return {"200": answered, **{code: _refusal(code) for code in REFUSALS}}


def _refusal(code: str) -> Schema:
    return {"description": REFUSALS[code], "content": _json(_ref("Error"))}


def _header(text: str, *, required: bool) -> Schema:
    return {"description": text, "required": required, "schema": {"type": "string"}}


def _v1_request(names: Names) -> Schema:
    features = {f.name: _value(f) for f in names.contract.features}
    keys = {name: _key(kind) for name, kind in names.keys.items()}
    clock = {name: value for name, value in features.items() if name == names.time}
    whole = {name: value for name, value in features.items() if name not in clock}
    # Each row holds the same names, so it is a list that has one form or the other.
    forms = [_row(whole, keys | clock)]
    if names.looked_up:
        forms.append(_row({n: features[n] for n in names.required} | keys, clock))
    if names.contract.plain:
        forms.extend(features.values())
    rows = {"type": "array", "minItems": 1, "maxItems": names.contract.rows}
    instances = {"anyOf": [{**rows, "items": form} for form in forms]}
    return {**_object({"instances": instances}), **_left_out(names)}


def _row(required: Mapping[str, Schema], optional: Mapping[str, Schema]) -> Schema:
    properties = {**required, **optional}
    return {**_object(properties), "required": list(required), "additionalProperties": False}


def _v1_response(names: Names) -> Schema:
    classes = names.contract.classes
    row = _object({"label": _label(classes), "probability": _probabilities(classes)})
    return _object({"predictions": {"type": "array", "items": row}})


def _v2_request(names: Names) -> Schema:
    inputs = [_tensor(feature) for feature in names.contract.features]
    keys = [
        _object({"name": {"const": name}, "datatype": {"enum": ["INT64", "BYTES"]}}, **_loose())
        for name in names.keys
    ]
    output = _object({"name": {"enum": list(OUTPUTS)}}, parameters=_only("binary_data"))
    asked = _object(
        {"inputs": {"type": "array", "minItems": 1, "items": {"anyOf": inputs + keys}}},
        id={"type": "string"},
        parameters=_only("binary_data_output"),
        outputs={"type": "array", "items": output},
    )
    return {**asked, **_left_out(names)}


def _tensor(feature: Feature) -> Schema:
    shape = [{"type": "integer", "minimum": 1}]
    shape += [{"const": size} for size in feature.shape[1:]]
    datatypes = ["FP32"] if feature.length is not None else ["FP32", "FP64", "INT64"]
    held = {
        "name": {"const": feature.name},
        "shape": {"type": "array", "prefixItems": shape, "items": False, "minItems": len(shape)},
        "datatype": {"enum": datatypes},
        "data": {"type": "array", "items": _number(feature)},
    }
    return _object(held, parameters={"type": "object"})


def _loose() -> dict[str, Schema]:
    return {"shape": {"type": "array"}, "data": {"type": "array"}, "parameters": {"type": "object"}}


def _v2_response(name: str) -> Schema:
    output = _object(
        {
            "name": {"enum": list(OUTPUTS)},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "datatype": {"enum": ["INT64", "FP32"]},
            "data": {"type": "array", "items": {"type": "number"}},
        }
    )
    most = len(OUTPUTS)
    return _object(
        {
            "model_name": {"const": name},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "minItems": 1, "maxItems": most, "items": output},
        }
    )


def _metadata() -> Schema:
    shape = {"type": "array", "items": {"type": "integer", "minimum": -1}}
    text = {"type": "string"}
    more = _options("optional", "key")
    return _object({"name": text, "datatype": text, "shape": shape}, parameters=more)


def _options(*known: str) -> Schema:
    """Return an object of truth values."""
    return {"type": "object", "properties": {name: {"type": "boolean"} for name in known}}


def _only(*known: str) -> Schema:
    return {**_options(*known), "additionalProperties": False}


def _left_out(names: Names) -> Schema:
    """Return, where features are looked up, the sentence that says what may be left out."""
    if not names.looked_up:
        return {}
    features, keys = ", ".join(sorted(names.looked_up)), ", ".join(names.keys)
    said = f"May be left out, all of them together: {features}. Then {keys} must be there."
    return {"description": said}


def _label(classes: int) -> Schema:
    return {"type": "integer", "minimum": 0, "maximum": classes - 1}


def _probabilities(classes: int) -> Schema:
    each = {"type": "number", "minimum": 0, "maximum": 1}
    return {"type": "array", "items": each, "minItems": classes, "maxItems": classes}


def _value(feature: Feature) -> Schema:
    """Return what a feature's value is in a v1 row."""
    number = _number(feature)
    if feature.length is None:
        return number
    size = feature.length
    return {"type": "array", "items": number, "minItems": size, "maxItems": size}


def _number(feature: Feature) -> Schema:
    kind = "integer" if feature.whole else "number"
    said: Schema = {"type": [kind, "null"] if feature.nullable else kind}
    stamp = feature.dtype == STAMP
    low, high = (EARLIEST_US, LATEST_US) if stamp else (feature.low, feature.high)
    if feature.among is not None:
        return {"enum": [*feature.among, *([None] if feature.nullable else [])]}
    if low is not None:
        said["minimum"] = low
    if high is not None:
        said["maximum"] = high
    return said


def _key(kind: str) -> Schema:
    return {"type": "integer" if kind.startswith(("INT", "UNIX")) else "string"}


def _object(required: Mapping[str, Schema], **optional: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
    }


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
