# Rewrites the tables of a Markdown document as lists of terms, which fit any terminal: the first
# column is the term, the last one its definition, and what is between follows the term.
/^\|[-|: ]+\|$/ { next }
/^\|/ {
    line = $0
    gsub(/\\\|/, "\001", line)
    count = split(line, cells, /[ ]*\|[ ]*/)
    if (!in_table) {
        in_table = 1
        split(line, headings, /[ ]*\|[ ]*/)
        next
    }
    between = ""
    for (i = 3; i < count - 1; i++)
        if (cells[i] != "") {
            what = headings[i] == "value" ? "" : headings[i] " "
            between = between (between == "" ? "" : "; ") what cells[i]
        }
    text = cells[2] (between == "" ? "" : " (" between ")") "\n:   " cells[count - 1] "\n"
    gsub(/\001/, "|", text)
    print text
    next
}
{ in_table = 0; print }
