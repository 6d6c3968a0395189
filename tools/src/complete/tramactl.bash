# Completions of tramactl for bash.
_tramactl() {
    local IFS=$' \t\n' line=${COMP_LINE:0:COMP_POINT} words
    read -ra words <<<"$line"
    [[ $line != *[[:space:]] ]] || words+=("")
    local word=${words[-1]}
    IFS=$'\n'
    COMPREPLY=($(tramactl complete "${words[@]:1}" 2>/dev/null | cut -f1))
    # A value follows the equals sign.
    [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace
    # For bash, = and : end a word: it replaces what follows the last one.
    [[ $COMP_WORDBREAKS != *=* || $word != *[=:]* ]] ||
        COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*[=:]}"}"}")
}
complete -F _tramactl tramactl
