package lab

import (
	"fmt"
	"strconv"
	"strings"
)

// The texts are written for pages of 4096 bytes, and name the numbers that follow from
// that on a last line that no reader of the Markdown sees:
//
//	<!-- pages 4096=P 0004096=%07d:P 20000=4P+3616 -->
//
// Each word that stands in the text as it does before an equals sign is what stands
// behind it: a number of pages and a number of bytes, in decimal, or as a format of
// package fmt has it. So a text can be had for pages of any size.

const (
	writtenFor = 4096 // bytes in a page
	pagesBegin = "<!-- pages "
	pagesEnd   = " -->\n"
)

// Pages are the numbers of a text that follow from the size of a page.
type Pages map[string]pageNumber

// pageNumber is a number of bytes: pages times the size of a page, and rest.
type pageNumber struct {
	format      string
	pages, rest int
}

// PagesOf returns the numbers that a text names. Numbers that do not come to what the
// text has for pages of 4096 bytes are an error.
func PagesOf(text string) (Pages, error) {
	_, line, found := strings.Cut(text, pagesBegin)
	line, _, ends := strings.Cut(line, pagesEnd)
	if !found || !ends {
		return nil, nil
	}
	all := make(Pages)
	for _, field := range strings.Fields(line) {
		word, expression, _ := strings.Cut(field, "=")
		n, err := parsePageNumber(expression)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		if got := n.text(writtenFor); got != word {
			return nil, fmt.Errorf("%s: that is %s", field, got)
		}
		all[word] = n
	}
	return all, nil
}

// parsePageNumber reads [FORMAT:][N]P[+REST].
func parsePageNumber(s string) (n pageNumber, err error) {
	n.format, n.pages = "%d", 1
	if format, rest, found := strings.Cut(s, ":"); found {
		n.format, s = format, rest
	}
	s, rest, found := strings.Cut(s, "+")
	if found {
		if n.rest, err = strconv.Atoi(rest); err != nil {
			return n, err
		}
	}
	pages, isPages := strings.CutSuffix(s, "P")
	if !isPages {
		return n, fmt.Errorf("%q is no number of pages", s)
	}
	if pages != "" {
		n.pages, err = strconv.Atoi(pages)
	}
	return n, err
}

// text returns the number as the text has it, with pages of pageSize bytes.
func (n pageNumber) text(pageSize int) string { return fmt.Sprintf(n.format, n.pages*pageSize+n.rest) }

// For returns a text with the numbers for pages of pageSize bytes, and without the line
// that names them.
func (all Pages) For(text string, pageSize int) string {
	if before, after, found := strings.Cut(text, pagesBegin); found {
		_, after, _ = strings.Cut(after, pagesEnd)
		text = strings.TrimSuffix(before, "\n") + after
	}
	isWord := func(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
	var b strings.Builder
	for len(text) > 0 {
		end := 0
		for end < len(text) && isWord(text[end]) {
			end++
		}
		if n, known := all[text[:end]]; known {
			b.WriteString(n.text(pageSize))
		} else {
			end = max(end, 1)
			b.WriteString(text[:end])
		}
		text = text[end:]
	}
	return b.String()
}
