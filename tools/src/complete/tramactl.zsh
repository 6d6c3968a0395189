#compdef tramactl
# Completions of tramactl for zsh.
_tramactl() {
    local line
    local -a candidates values
    for line in ${(f)"$(tramactl complete "${(@)words[2,CURRENT]}" 2>/dev/null)"}; do
        candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    (( $#candidates )) || return 1
    # A value follows the equals sign.
    values=(${(M)candidates:#*=:*})
    (( ! $#values )) || _describe -o tramactl values -S ''
    candidates=(${candidates:#*=:*})
    (( ! $#candidates )) || _describe tramactl candidates
}
# Autoloaded, the file is the function; sourced, it registers it.
if [[ ${funcstack[1]-} == _tramactl ]]; then _tramactl "$@"; else compdef _tramactl tramactl; fi
