// Package quote writes paths in lines of text, and values in lists of options.
package quote

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Path returns a path as the control tree shows it: plain, unless it holds something that
// would break a line of text or a column; else quoted as in Go.
func Path(path string) string {
	plain := path != "" && utf8.ValidString(path) && !strings.ContainsFunc(path, func(r rune) bool {
		return r == ' ' || r == '"' || r == '\\' || !strconv.IsPrint(r)
	})
	if plain {
		return path
	}
	return strconv.Quote(path)
}

// Option returns a value so that -o takes it whole.
func Option(value string) string { return strings.NewReplacer(`\`, `\\`, ",", `\,`).Replace(value) }
