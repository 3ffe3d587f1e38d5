"""Sign-in of browsers: which ways there are, and the way through an identity provider, which ends with a token."""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import secrets
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

import orjson
import sqlalchemy as sa
from fastapi import Query, Request, Response

from isthmus.api import answers
from isthmus.api.audit import note
from isthmus.api.body import answer, read_body, when
from isthmus.api.routing import Router
from isthmus.api.service import Service, Serving
from isthmus.domain.errors import Corrupt, Forbidden, IsthmusError, NotFound, Unauthenticated, Unavailable
from isthmus.domain.task import FORBID_UNKNOWN
from isthmus.store import tables
from isthmus.trust.access import Anonymous, Scope
from isthmus.trust.oidc import Flow, SignIn
from isthmus.trust.tokens import mint

log = logging.getLogger(__name__)
router = Router("people")
COOKIE = "isthmus_signin"
_FLOW_SECONDS = 600  # from the first step to the way back
_CODE_SECONDS = 60  # from the way back to the token
_LONGEST_STATE = 4096
_CONTEXT = "signin"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedeemRequest:
    """What the way back carried behind `#sign-in-code=`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    code: str


@router.route("GET", "/v1/sign-in", rule=Anonymous(), answer=answers.SignInWays)
async def ways_to_sign_in(service: Serving) -> Response:
    """The ways to sign in: a token always, an identity provider where one is set up."""
    ways = [{"kind": "token", "name": "", "url": ""}]
    if service.sign_in is not None:
        provider = service.sign_in.provider
        ways.append({"kind": "oidc", "name": provider.name or provider.issuer, "url": "/v1/sign-in/oidc"})
    return answer({"ways": ways})


@router.route(
    "GET",
    "/v1/sign-in/oidc",
    rule=Anonymous(),
    status=302,
    errors=[404, 429, 503],
    headers=("Location", "Set-Cookie"),
)
async def begin_sign_in(request: Request, service: Serving) -> Response:
    """Send the browser to the identity provider."""
    service.strangers.spend(request.client.host if request.client else "")
    sign_in = _of(service)
    base = sign_in.provider.public_url.rstrip("/") or str(request.base_url).rstrip("/")
    browser = secrets.token_urlsafe(24)

    # The flow travels sealed in `state`, tied to this browser by the cookie: nothing is stored for strangers.
    def seal(flow: Flow) -> str:
        until = service.clock() + _FLOW_SECONDS
        return _seal(service, {"flow": asdict(flow), "browser": _hash(browser), "until": until})

    address = await sign_in.begin(f"{base}/v1/sign-in/oidc/callback", seal)
    done = Response(status_code=302, headers={"Location": address, "Cache-Control": "no-store"})
    done.set_cookie(
        COOKIE,
        browser,
        max_age=_FLOW_SECONDS,
        path="/v1",
        secure=base.startswith("https:"),
        httponly=True,
        samesite="lax",
    )
    return done


@router.route(
    "GET",
    "/v1/sign-in/oidc/callback",
    rule=Anonymous(),
    status=302,
    errors=[404, 429],
    headers=("Location",),
)
async def finish_sign_in(
    request: Request,
    service: Serving,
    state: Annotated[str, Query(max_length=_LONGEST_STATE)] = "",
    code: Annotated[str, Query(max_length=_LONGEST_STATE)] = "",
    error: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """The way back from the identity provider: on to the console, with a code that this browser redeems, or with the kind of
    what went wrong (`not_completed`, `no_user`, `provider`), which the console says in words."""
    service.strangers.spend(request.client.host if request.client else "")
    sign_in = _of(service)
    try:
        begun = _open(service, state)
        if error or not code or "flow" not in begun or not _same_browser(request, begun):
            raise Unauthenticated("The sign-in was not completed.")
        user = await sign_in.finish(code, Flow(**begun["flow"]))
        await service.database.read(_need_user, user)
    except Forbidden as cause:
        return _back("failed=no_user", cause)
    except Unauthenticated as cause:
        return _back("failed=not_completed", cause)
    except Unavailable as cause:
        return _back("failed=provider", cause)
    sealed = _seal(service, {"user": user, "browser": begun["browser"], "until": service.clock() + _CODE_SECONDS})
    return _back(f"code={sealed}")


def _need_user(connection: sa.Connection, user: str) -> None:
    known = connection.execute(sa.select(tables.users.c.disabled).where(tables.users.c.name == user)).first()
    if known is None or known.disabled:
        raise Forbidden(f"The identity provider names {user}, who is no user here: isthmus user add {user}")


def _back(what: str, cause: IsthmusError | None = None) -> Response:
    if cause is not None:
        log.info("a sign-in came to nothing: %s", cause.cause)
    return Response(status_code=302, headers={"Location": f"/#sign-in-{what}", "Cache-Control": "no-store"})


@router.route(
    "POST",
    "/v1/sign-in:redeem",
    rule=Anonymous(),
    body=RedeemRequest,
    answer=answers.NewToken,
    status=201,
    errors=[401, 404, 409, 422, 429],
)
async def redeem_sign_in(request: Request, service: Serving) -> Response:
    """The token of a completed sign-in, for the browser that began it; it lasts as long as the provider's settings say."""
    service.strangers.spend(request.client.host if request.client else "")
    provider = _of(service).provider
    asked = await read_body(request, RedeemRequest)
    done = _open(service, asked.code)
    if "user" not in done or not _same_browser(request, done):
        raise Unauthenticated("The sign-in was not completed.", remedy="Begin again from the sign-in page.")
    now = service.clock()
    user, expires_at = str(done["user"]), now + provider.session_seconds
    scopes = provider.scopes or tuple(scope for scope in Scope if scope is not Scope.AGENT)

    def store(connection: sa.Connection) -> dict[str, Any]:
        minted = mint(
            connection, now=now, user=user, scopes=scopes, description="sign-in in a browser", expires_at=expires_at
        )
        note(connection, now, user, "token.create", minted.id, {"user": user, "by": "sign-in"})
        return {
            "id": minted.id,
            "user": user,
            "scopes": sorted(scopes),
            "description": "sign-in in a browser",
            "created_at": when(now),
            "expires_at": when(expires_at),
            "revoked_at": None,
            "last_used_at": None,
            "token": minted.secret,
        }

    made = answer(await service.database.write(store))
    made.status_code = 201
    made.delete_cookie(COOKIE, path="/v1")
    made.headers["Cache-Control"] = "no-store"
    return made


def _of(service: Service) -> SignIn:
    if service.sign_in is None:
        raise NotFound("No identity provider is set up here.", remedy="Sign in by token.")
    return service.sign_in


def _seal(service: Service, document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(service.sealer.seal(orjson.dumps(document), _CONTEXT)).decode().rstrip("=")


def _open(service: Service, text: str) -> dict[str, Any]:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        document: dict[str, Any] = orjson.loads(service.sealer.unseal(raw, _CONTEXT))
    except (ValueError, binascii.Error, Corrupt):
        raise Unauthenticated("The sign-in is not one of this service.", remedy="Begin again.") from None
    if document.get("until", 0.0) < service.clock():
        raise Unauthenticated("The sign-in took too long.", remedy="Begin again.")
    return document


def _same_browser(request: Request, document: dict[str, Any]) -> bool:
    return secrets.compare_digest(_hash(request.cookies.get(COOKIE, "")), str(document.get("browser", "")))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
