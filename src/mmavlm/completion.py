"""Completion for shells: `eval "$(mmavlm completion bash)"` and what it asks with each tab."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from string import Template

from mmavlm.commands.complete import candidates
from mmavlm.commands.plain import run_plain
from mmavlm.commands.verbs import COMMANDS

QUERY = "query"
BASH = r"""# completion of mmavlm for bash: eval "$$(mmavlm completion bash)" in ~/.bashrc
_mmavlm() {
    local line="$${COMP_LINE:0:COMP_POINT}" IFS=$$' \t\n'
    local -a words
    read -ra words <<< "$$line"  # as typed: bash itself cuts words at "="
    [[ $$line == *[[:space:]] ]] && words+=("")
    local current="$${words[$${#words[@]}-1]}" program=mmavlm kept=""
    [[ $${words[0]} == */* ]] && program="$${words[0]%/*}/mmavlm"
    IFS=$$'\n'
    COMPREPLY=($$("$$program" completion query "$${words[@]}" 2>/dev/null))
    if [[ $$current == *=* ]]; then
        [[ $$COMP_WORDBREAKS == *=* ]] && kept="$${current%"$${current##*=}"}"
        COMPREPLY=("$${COMPREPLY[@]#"$$kept"}")
        if [[ -z $${COMPREPLY[*]} ]]; then
            [[ -z $$kept ]] && kept="$${current%%=*}=" || kept=""
            COMPREPLY=($$(compgen -P "$$kept" -f -- "$${current#*=}"))
            compopt -o filenames 2>/dev/null
        fi
    fi
    [[ $${#COMPREPLY[@]} == 1 && $${COMPREPLY[0]} == *[=.] ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -F _mmavlm $programs
"""
ZSH = r"""#compdef $programs
# completion of mmavlm for zsh: eval "$$(mmavlm completion zsh)" in ~/.zshrc, behind compinit
_mmavlm() {
    local current="$${words[CURRENT]}" program=mmavlm
    local -a found
    [[ $${words[1]} == */* ]] && program="$${words[1]:h}/mmavlm"
    found=("$${(@f)$$("$$program" completion query "$${(@)words[1,CURRENT]}" 2>/dev/null)}")
    found=($${found:#})
    if (( $$#found )); then
        local -a open=($${(M)found:#*[=.]}) whole=($${found:#*[=.]})
        (( $$#open )) && compadd -S '' -a open
        (( $$#whole )) && compadd -a whole
    elif [[ $$current == *=* ]]; then
        compset -P '*=' && _files
    else
        _files
    fi
}
compdef _mmavlm $programs
"""
FISH = r"""# completion of mmavlm for fish: mmavlm completion fish | source, in config.fish
function __mmavlm_words
    set -l current (commandline -ct)
    set -l found (mmavlm completion query (commandline -opc) "$$current" 2>/dev/null)
    if test (count $$found) -gt 0
        printf '%s\n' $$found
    else if string match -q '*=*' -- "$$current"
        set -l parts (string split -m 1 = -- "$$current")
        for path in (__fish_complete_path "$$parts[2]")
            printf '%s=%s\n' "$$parts[1]" "$$path"
        end
    else
        __fish_complete_path "$$current"
    end
end
for program in $programs
    complete -c $$program -f -a '(__mmavlm_words)'
end
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def completion(shell: str) -> int:
    """Print the script of a shell; 0."""
    programs = " ".join(["mmavlm", *(f"mmavlm-{verb}" for verb in COMMANDS)])
    print(Template(SCRIPTS[shell]).substitute(programs=programs), end="")
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `mmavlm-completion`; the scripts ask it `query` and the words typed so far."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == [QUERY] and len(given) > 1:
        print("\n".join(candidates(given[1:])))
    else:
        run_plain("completion", completion, given)


if __name__ == "__main__":
    main()
