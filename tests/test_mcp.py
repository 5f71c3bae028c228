"""The endpoints as tools for agents: typed, described, and refused in one line where the package is missing."""

import ast
import asyncio
import inspect
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from chromium import free_port
from gradio.utils import get_function_description

from prophy.cli import main
from prophy.ui.engine.engine import Engine
from prophy.ui.page import build_demo, launch

TOOLS = {"generate", "compare", "inspect_token", "export_overlay", "list_gallery"}


def test_without_the_package_the_flag_names_it_in_one_line(monkeypatch, capsys, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.chdir(tmp_path)
    assert main(["app", "--mcp", "--no-browser"]) == 2
    said = capsys.readouterr().err.strip()
    assert said == "prophy: --mcp needs the package mcp: pip install 'mcp>=1.21,<2'"
    assert list(tmp_path.iterdir()) == []


def test_every_argument_of_every_tool_is_typed_and_described(tmp_path: Path):
    demo = build_demo(Engine(runs=tmp_path))
    public = {one.api_name: one.fn for one in demo.fns.values() if one.api_visibility == "public"}
    assert public.keys() == TOOLS
    for name, endpoint in public.items():
        description, arguments, _ = get_function_description(endpoint)
        assert 20 < len(description) < 400, name
        for argument, text in arguments.items():
            if argument == "visit":  # gradio's own, who asks
                continue
            assert inspect.signature(endpoint).parameters[argument].annotation is not inspect.Parameter.empty
            assert len(text) > 10, (name, argument)


@pytest.mark.skipif(find_spec("mcp") is None, reason="the package mcp is not installed")
def test_an_agent_lists_the_tools_and_looks_at_a_token(tmp_path: Path):
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    demo = build_demo(Engine(runs=tmp_path))
    address = launch(demo, port=free_port(), mcp=True)

    async def ask() -> tuple[list, list, dict, str]:
        async with (
            streamable_http_client(f"{address.rstrip('/')}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = (await session.list_tools()).tools
            shipped = await session.call_tool("list_gallery", {})
            run = ast.literal_eval(shipped.content[0].text)[0]  # so gradio writes what a tool returns
            token = await session.call_tool("inspect_token", {"run": run["run"], "frame": 0, "row": 1, "column": 2})
            refused = await session.call_tool("inspect_token", {"run": "none", "frame": 0, "row": 1, "column": 2})
            return tools, run, ast.literal_eval(token.content[0].text), refused.content[0].text

    try:
        tools, run, token, refused = asyncio.run(ask())
    finally:
        demo.close(verbose=False)
    assert {tool.name for tool in tools} == TOOLS
    assert all(tool.description for tool in tools)
    properties = next(tool for tool in tools if tool.name == "generate").inputSchema["properties"]
    assert properties["prompt"]["type"] == "string"
    assert "visit" not in properties
    assert run["prompt"]
    assert token["token"] > 0
    assert "no run none here" in refused
