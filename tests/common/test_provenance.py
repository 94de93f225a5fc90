import re
import subprocess
import sys

from diffusion_policy.common import provenance


def test_the_command_can_be_typed_again(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/some/where/eval.py", "--checkpoint", "a b.ckpt"])
    assert provenance.command_line() == "python eval.py --checkpoint 'a b.ckpt'"


def test_the_commit_is_that_of_the_code(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    assert provenance.commit() == "unknown"

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True)

    (tmp_path / "code.py").write_text("1")
    git("init", "--quiet")
    assert provenance.commit() == "unknown"  # nothing is committed
    git("add", ".")
    git("commit", "--quiet", "--message=First")
    git("tag", "v1")
    assert re.fullmatch(r"[0-9a-f]{7,}", provenance.commit())
    (tmp_path / "code.py").write_text("2")
    assert re.fullmatch(r"[0-9a-f]{7,}-dirty", provenance.commit())
