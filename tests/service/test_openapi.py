"""The OpenAPI document is true: requests made from it are answered as it says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import hypothesis
import schemathesis
import trio
from hypothesis import HealthCheck, Phase
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from starlette.routing import BaseRoute, Mount, Route

from dotmac.tasks.service.api.documents import StepInput
from service.house import HERE, PARKS, House, house, saga


async def document() -> dict[str, Any]:
    async with house() as service:
        found: dict[str, Any] = (await service.client.get("/openapi.json")).json()
    # Which operations there are is not the document's to know, but some requests shall be carried out.
    fields = found["components"]["schemas"]["StepInput"]["properties"]
    fields["operation"] = {"enum": ["do"]}
    fields["compensation_operation"] = {"enum": ["undo"]}
    return found


# Event streams do not end, so a client that takes whole answers cannot ask for them.
SCHEMA = schemathesis.openapi.from_dict(trio.run(document)).exclude(path_regex="events$")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]


@SCHEMA.parametrize()
@hypothesis.settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_api_does_what_its_document_says(case: Any) -> None:
    async def ask() -> httpx.Response:
        async with house() as service:
            known = await service.run(*PARKS)
            if "saga_id" in case.path_parameters and len(case.path_parameters["saga_id"]) % 2:
                case.path_parameters["saga_id"] = known  # drawn ids are never those of a saga that is there
            request = case.as_transport_kwargs(base_url=HERE)
            service.client.cookies.update(request.pop("cookies"))
            if "data" in request:
                request["content"] = request.pop("data")
            return await service.client.request(**request)

    case.validate_response(trio.run(ask), checks=CHECKS)


async def test_the_document_tells_every_field_of_a_step(service: House) -> None:
    answer = await service.client.post("/v1/sagas", json=saga({"nothing": 1}))
    allowed = answer.json()["detail"].partition("a step has: ")[2].split(", ")
    assert allowed == list(StepInput.__struct_fields__)


async def test_every_route_is_in_the_document(service: House) -> None:
    paths = (await service.client.get("/openapi.json")).json()["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert described | {("GET", "/openapi.json")} == set(routes(service.app.routes, ""))


def routes(found: Sequence[BaseRoute], above: str) -> Iterator[tuple[str, str]]:
    """Methods and paths that the application answers, but for those that are for browsers."""
    for route in found:
        if isinstance(route, Mount):
            yield from routes(route.routes, route.path)
        elif isinstance(route, Route) and route.path not in ("/login", "/logout"):
            yield from (
                (method, above + route.path.replace(":path}", "}")) for method in (route.methods or set()) - {"HEAD"}
            )
