"""Compares #Param and MAdds of all networks with the paper.

python -m tools.lab.paper            # all networks
python -m tools.lab.paper --tables   # the paper's Tables 1, 8, 9 and 10
"""

import argparse

from posedy.cli.options import add_json, write_json
from tools.lab.entry import run_and_exit
from tools.lab.paper.comparison import compare_models, compare_tables, models_to_json, tables_to_json
from tools.lab.paper.comparison_report import format_models, format_tables


def main(argv: list[str] | None = None) -> None:
    """Prints the comparison."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lab.paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--input-size",
        type=int,
        nargs=2,
        default=[192, 256],
        metavar=("WIDTH", "HEIGHT"),
        help="size of the crops (default: 192 256)",
    )
    sizes.add_argument("--tables", action="store_true", help="compare the paper's Tables 1, 8, 9 and 10 instead")
    add_json(parser)
    arguments = parser.parse_args(argv)
    if arguments.tables:
        tables = compare_tables()
        print(format_tables(tables))
        write_json(arguments.json, tables_to_json(tables))
    else:
        width, height = arguments.input_size
        rows = compare_models((width, height))
        print(format_models(rows, (width, height)))
        write_json(arguments.json, models_to_json(rows, (width, height)))


if __name__ == "__main__":
    run_and_exit(main, "paper")
