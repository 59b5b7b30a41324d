"""Routes: WebSockets by path, health and readiness by HTTP."""

from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.websockets import WebSocket

from services.ingress.dialects.registry import PATHS
from services.ingress.door import Door, deny_unknown_path

Troubles = Callable[[], list[str]]


def build_app(door: Door, troubles: Troubles) -> FastAPI:
    """``troubles``: why a session could not be served now, empty when it could."""
    app = FastAPI(title="Auricle", version=version("auricle"))

    @app.get("/")
    async def about() -> dict[str, object]:
        return {
            "service": "auricle",
            "version": version("auricle"),
            "websockets": sorted(PATHS),
            "sessions": door.sessions,
            "endpoints": ["/", "/health", "/ready", "/docs"],
        }

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "healthy", "timestamp": datetime.now(UTC).isoformat()}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        reasons = troubles()
        return JSONResponse({"ready": not reasons, "reasons": reasons}, status_code=503 if reasons else 200)

    @app.websocket("/{path:path}")
    async def socket(websocket: WebSocket, path: str) -> None:
        name = PATHS.get("/" + path.rstrip("/"))
        if name is None:
            await deny_unknown_path(websocket)
        else:
            await door.enter(websocket, name)

    return app
