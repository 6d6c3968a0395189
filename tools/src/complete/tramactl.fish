# Completions of tramactl for fish.
complete -c tramactl -f -a '(tramactl complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
