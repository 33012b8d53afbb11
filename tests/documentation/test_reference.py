"""The reference of the site has a page for each public name; `test_site.py` builds it."""

import ast
import re

import hf_videovit
from tests.documentation.pages import ROOT


def test_every_public_name_has_a_page():
    tree = ast.parse((ROOT / "docs" / "_site" / "hooks.py").read_text(encoding="utf-8"))
    assigned = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    patterns = list(ast.literal_eval(assigned["REFERENCE"]).values())
    modules = {name: hf_videovit.MODULE_OF[name] for name in hf_videovit.__all__}
    assert [name for name, module in modules.items() if not any(re.match(one, module) for one in patterns)] == []
