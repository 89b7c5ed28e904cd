// Package lab holds the exercises on memory mapping that "mapfs lab" shows. Each
// is a Markdown file beside this one, NN-name.md, whose first line is its title.
// Their transcripts are run and compared by the tests in integration.
package lab

import (
	"embed"
	"fmt"
	"strconv"
	"strings"
)

//go:embed [0-9]*.md
var files embed.FS

// Exercise is one exercise.
type Exercise struct {
	Number int    // from 1 on
	Name   string // the file's name, as "01-mapping.md"
	Title  string // the headline, without number and mark-up
	Text   string // Markdown, the headline included, as it is for pages of 4096 bytes
	pages  Pages
}

// For returns the text for a machine whose pages have pageSize bytes.
func (e Exercise) For(pageSize int) string { return e.pages.For(e.Text, pageSize) }

// Exercises returns all exercises in their order. It has no errors to report: the
// files are part of the program, and a test has seen them all.
func Exercises() []Exercise {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // the embedded directory is there
	}
	var all []Exercise
	for _, entry := range entries { // sorted by name
		text, err := files.ReadFile(entry.Name())
		if err != nil {
			panic(err) // it was listed
		}
		e, err := parse(entry.Name(), string(text))
		if err != nil {
			panic(err) // TestExercises fails first
		}
		all = append(all, e)
	}
	return all
}

// parse reads the number from an exercise's name and the title from its first
// line, "# NN Title".
func parse(name, text string) (Exercise, error) {
	digits, _, _ := strings.Cut(name, "-")
	number, err := strconv.Atoi(digits)
	if err != nil {
		return Exercise{}, fmt.Errorf("%s: the name begins with no number", name)
	}
	headline, _, _ := strings.Cut(text, "\n")
	title, found := strings.CutPrefix(headline, "# "+digits+" ")
	if !found || title == "" {
		return Exercise{}, fmt.Errorf("%s: the first line is %q and not \"# %s Title\"", name, headline, digits)
	}
	pages, err := PagesOf(text)
	if err != nil {
		return Exercise{}, fmt.Errorf("%s: %w", name, err)
	}
	return Exercise{Number: number, Name: name, Title: title, Text: text, pages: pages}, nil
}
