package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// replaceInFile puts text between the marks of that name in a Markdown file. What
// stands around them is written by hand and stays as it is. A file or marks that are
// missing are made.
func replaceInFile(path, name, text string) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	replaced, err := replaceMarked(string(old), name, text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(replaced), 0o644)
}

func replaceMarked(doc, name, text string) (string, error) {
	begin := fmt.Sprintf("<!-- %s: begin; written by make bench, changes here are lost -->\n", name)
	end := fmt.Sprintf("<!-- %s: end -->\n", name)
	block := begin + "\n" + strings.TrimSpace(text) + "\n\n" + end
	before, rest, found := strings.Cut(doc, begin)
	if !found {
		if strings.Contains(doc, end) {
			return "", fmt.Errorf("the mark %q is missing", strings.TrimSpace(begin))
		}
		if doc != "" {
			doc = strings.TrimRight(doc, "\n") + "\n\n"
		}
		return doc + block, nil
	}
	_, after, found := strings.Cut(rest, end)
	if !found {
		return "", fmt.Errorf("the mark %q is missing", strings.TrimSpace(end))
	}
	return before + block + after, nil
}
