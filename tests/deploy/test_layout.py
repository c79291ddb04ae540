"""What is in deploy/ is told of in its guide."""

from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def test_the_guide_names_every_file_and_folder() -> None:
    guide = (DEPLOY / "README.md").read_text()
    unnamed = [it.name for it in DEPLOY.iterdir() if it.name != "README.md" and it.name not in guide]
    assert not unnamed, f"deploy/README.md says nothing of {', '.join(sorted(unnamed))}"
