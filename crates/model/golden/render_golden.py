"""What transformers makes of chat templates: `python render_golden.py [FOLDER]`.

Renders every conversation of conversations.json with every `FOLDER/*.jinja` (default: `templates` beside this file) as
`apply_chat_template` of transformers does, and writes `FOLDER/rendered.json`: by template a list of `{"text": ...}` or
`{"refused": ...}`, the latter with the template's own words, or null where Python failed. No date of today is in it:
`strftime_now` is fixed at 26 July 2024, as the program fixes it.
"""

import datetime
import json
import pathlib
import sys

import jinja2
import transformers
from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).parent


def render(template, conversation):
    """The one call that `render_jinja_template` makes, with the date fixed."""
    try:
        compiled = chat_template_utils._compile_jinja_template(template)
        text = compiled.render(
            messages=json.loads(json.dumps(conversation["messages"])),
            tools=None,
            documents=None,
            add_generation_prompt=conversation["prompt"],
            bos_token="<s>",
            eos_token="</s>",
            strftime_now=lambda form: datetime.datetime(2024, 7, 26).strftime(form),
        )
        return {"text": text}
    except jinja2.exceptions.TemplateSyntaxError:
        raise
    except jinja2.exceptions.TemplateError as error:
        return {"refused": error.message if type(error) is jinja2.exceptions.TemplateError else None}
    except Exception:
        return {"refused": None}


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "templates"
    conversations = json.loads((HERE / "conversations.json").read_text())
    rendered = {}
    for path in sorted(folder.glob("*.jinja")):
        template = path.read_bytes().decode()
        try:
            rendered[path.stem] = [render(template, conversation) for conversation in conversations]
        except jinja2.exceptions.TemplateSyntaxError as error:
            print(f"left out: {path.name} is no template that transformers {transformers.__version__} compiles: {error}")
    text = json.dumps({"transformers": transformers.__version__, "jinja2": jinja2.__version__, "rendered": rendered}, indent=1)
    (folder / "rendered.json").write_text(text + "\n")
    print(f"{len(rendered)} templates, {len(conversations)} conversations")


main()
