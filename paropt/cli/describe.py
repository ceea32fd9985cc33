"""``paropt describe``."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paropt.cli._study import say

if TYPE_CHECKING:
    from paropt.data.describing.ask import Cost, Outcome
    from paropt.data.describing.prompts import About

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("directory", metavar="DIR", type=FILE)
@click.option("--users", "about", flag_value="users", help="What each user likes.")
@click.option("--items", "about", flag_value="items", help="What each item is.")
@click.option("--out", type=FILE, metavar="FILE", help="The file to write, JSON lines.")
@click.option("--overwrite", is_flag=True, help="Replace FILE whatever it is.")
@click.option("--from-history", is_flag=True, help="Users' texts from titles, without any model.")
@click.option("--base-url", metavar="URL", help="An endpoint with OpenAI's chat completions.")
@click.option("--model", metavar="NAME", help="The endpoint's model.")
@click.option(
    "--key-env", default="OPENAI_API_KEY", metavar="NAME", help="Environment variable of the key."
)
@click.option("--prompt", type=FILE, metavar="FILE", help="A prompt of your own.")
@click.option("--show-prompt", is_flag=True, help="Print the prompt that would be used, and end.")
@click.option("--titles", metavar="NAME", help="The items' feature that names them.")
@click.option("--kinds", metavar="NAME", help="The items' feature with their categories.")
@click.option("--last", type=click.IntRange(min=1), default=20, help="Titles of a user's history.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=160, help="Of an answer.")
@click.option("--parallel", type=click.IntRange(1, 256), default=4, help="Questions at a time.")
@click.option("--per-minute", type=click.FloatRange(min=0), default=0.0, help="At most; 0: any.")
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=60.0, help="Seconds of a question."
)
@click.option("--price-in", type=click.FloatRange(min=0), help="Of a million tokens asked.")
@click.option("--price-out", type=click.FloatRange(min=0), help="Of a million tokens answered.")
@click.option("--dry-run", is_flag=True, help="Only say what it would cost; show one prompt.")
@click.option("--yes", is_flag=True, help="Don't ask before money is spent.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def describe(directory: Path, about: About | None, **given: Any) -> None:
    """Write texts about the users or items of a dataset directory.

    Users' texts are written from the training part alone. Say --from-history, or ask a language
    model: answers are kept, and the same command asks for what is lacking.

    \b
    paropt describe data/shop --users --from-history --out taste.jsonl
    paropt describe data/shop --users --base-url http://HOST/v1 --model qwen --dry-run
    paropt prepare … --user-features taste.jsonl --user-text-vectors taste --out data/shop2
    """
    from paropt.data.describing.prompts import Prompt

    if about is None:
        raise click.UsageError("say what to write about: --users or --items")
    if given["show_prompt"]:
        click.echo(Prompt.read(given["prompt"], about).text, nl=False)
        return
    _check(about, given)
    _describe(directory, about, given)


def _check(about: About, given: Mapping[str, Any]) -> None:
    asks = given["base_url"] or given["model"]
    if given["from_history"]:
        if asks:
            raise click.UsageError("--from-history asks no model; leave --base-url and --model out")
        if about == "items":
            raise click.UsageError("--from-history writes about users; items have their own texts")
    elif not (given["base_url"] and given["model"]):
        raise click.UsageError(
            "name an endpoint with --base-url and --model, or say --from-history"
        )
    if given["out"] is None and not given["dry_run"]:
        raise click.UsageError("name the file to write: --out FILE")


def _describe(directory: Path, about: About, given: Mapping[str, Any]) -> None:
    from paropt.data.dataset import open_dataset
    from paropt.data.describing.describe import check_out, ids_of, texts_from_history, write_texts
    from paropt.data.describing.prompts import Source

    out: Path | None = given["out"]
    if out is not None and not given["dry_run"]:
        check_out(out, given["overwrite"])
    dataset = open_dataset(directory)
    source = Source.of(dataset, given["titles"], given["kinds"], given["last"])
    every = len(ids_of(source, about)[: given["limit"]])
    if given["from_history"]:
        texts = texts_from_history(source, given["limit"])
        if given["dry_run"]:
            click.echo(next(iter(texts.values()), "nobody has a text"))
            return
        by, without = "history", {"nothing is known of them": every - len(texts)}
    else:
        found = _ask(source, about, given)
        if found is None:
            return
        by, texts, without = str(given["model"]), found.texts, dict(found.without)
        unknown = every - len(texts) - sum(without.values())
        without["nothing is known of them"] = unknown
    assert out is not None
    write_texts(out, dataset, about, texts, by)
    _report(out, about, texts, {why: n for why, n in without.items() if n}, given["as_json"])


def _ask(source: Any, about: About, given: Mapping[str, Any]) -> Outcome | None:
    from paropt.data.describing.answers import Answers
    from paropt.data.describing.ask import Limits, ask_all, cost
    from paropt.data.describing.describe import prompts_of
    from paropt.data.describing.endpoint import Endpoint
    from paropt.data.describing.prompts import Prompt
    from paropt.machine.home import paropt_home

    endpoint = Endpoint(
        given["base_url"],
        given["model"],
        os.environ.get(given["key_env"], ""),
        given["max_tokens"],
        given["timeout"],
    )
    prompts = prompts_of(source, about, Prompt.read(given["prompt"], about), given["limit"])
    answers = Answers(paropt_home() / "described", endpoint.model, endpoint.max_tokens)
    try:
        _say_cost(cost(prompts, answers, endpoint.max_tokens), about, given)
        if given["dry_run"]:
            click.echo(next(iter(prompts.values()), "nothing to ask"))
            return None
        limits = Limits(given["parallel"], given["per_minute"])
        return ask_all(prompts, endpoint, answers, limits, say)
    finally:
        answers.close()


def _say_cost(found: Cost, about: About, given: Mapping[str, Any]) -> None:
    if not found.questions:
        say(f"every one of {found.kept:,} questions was answered before; nothing is asked")
        return
    kept = f" ({found.kept:,} more were answered before)" if found.kept else ""
    say(
        f"{found.questions:,} questions about {about}{kept}: about {found.tokens_in:,} tokens asked"
        f" and at most {found.tokens_out:,} answered"
    )
    if given["price_in"] is not None or given["price_out"] is not None:
        money = found.money(given["price_in"] or 0.0, given["price_out"] or 0.0)
        say(f"at most about {money:,.2f} in the prices' currency")
    if given["dry_run"] or given["yes"]:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to ask whether that may be spent; say --yes")
    click.confirm("Ask them?", abort=True, err=True)


def _report(
    out: Path, about: About, texts: Mapping[str, str], without: Mapping[str, int], as_json: bool
) -> None:
    from paropt.data.describing.describe import field_name

    name, lacking = field_name(about), sum(without.values())
    for why, count in without.items():
        say(f"{count:,} {about} have no text: {why}")
    if any(why != "nothing is known of them" for why in without):
        say("the same command asks for these again")
    if as_json:
        found = {"path": str(out), "texts": len(texts), "without": dict(without), "field": name}
        click.echo(json.dumps(found, indent=1))
        return
    click.echo(f"{out}: texts of {len(texts):,} {about}, {lacking:,} have none")
    table, vectors = ("user", "user-text-vectors") if about == "users" else ("item", "text-vectors")
    click.echo(
        f"next  add to your 'paropt prepare': --{table}-features {shlex.quote(str(out))}"
        f" --kind {name}=text --{vectors} {name}"
    )
