# Completions of tramactl for bash.
_tramactl() {
    local IFS=$'\n'
    COMPREPLY=($(tramactl complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | cut -f1))
    # A value follows the equals sign.
    [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace
}
complete -F _tramactl tramactl
