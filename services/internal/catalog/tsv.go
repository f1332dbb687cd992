package catalog

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// row is one line of a table. The first thing wrong with it is kept in err.
type row struct {
	cells []string
	err   error
}

func (r *row) fail(why string) {
	if r.err == nil {
		r.err = errors.New(why)
	}
}

// text returns a cell that may not be empty.
func (r *row) text(i int) string {
	if r.cells[i] == "" {
		r.fail(fmt.Sprintf("column %d is empty", i+1))
	}
	return r.cells[i]
}

// number returns a cell that must be a number from 1 to most.
func (r *row) number(i, most int) int {
	n, err := strconv.Atoi(r.cells[i])
	if err != nil || n < 1 || n > most || strconv.Itoa(n) != r.cells[i] {
		r.fail(fmt.Sprintf("%q is not a number from 1 to %d", r.cells[i], most))
		return 0
	}
	return n
}

// oneOf returns which of the words a cell is.
func (r *row) oneOf(i int, words ...string) int {
	n := slices.Index(words, r.cells[i])
	if n < 0 {
		r.fail(fmt.Sprintf("%q is none of %q", r.cells[i], words))
		return 0
	}
	return n
}

// list returns the parts of a cell, which are separated by commas.
func (r *row) list(i int) []string {
	if r.cells[i] == "" {
		return nil
	}
	parts := strings.Split(r.cells[i], ",")
	for j, p := range parts {
		if p == "" || p != strings.TrimSpace(p) || slices.Contains(parts[:j], p) {
			r.fail(fmt.Sprintf("%q is not a list of different words", r.cells[i]))
		}
	}
	return parts
}

// eachRow calls f for each line after the header. The lines must be in the order
// of the number in their first column, if it is one.
func eachRow(fsys fs.FS, name, header string, f func(row) error) error {
	content, err := fs.ReadFile(fsys, name)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
	if lines[0] != strings.ReplaceAll(header, " ", "\t") {
		return fmt.Errorf("%s: the header is %q", name, lines[0])
	}
	columns, last := strings.Count(lines[0], "\t")+1, 0
	for i, line := range lines[1:] {
		r := row{cells: strings.Split(line, "\t")}
		err := r.checkForm(columns, &last)
		if err == nil {
			err = f(r)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", name, i+2, err)
		}
	}
	return nil
}

func (r *row) checkForm(columns int, last *int) error {
	if len(r.cells) != columns {
		return fmt.Errorf("%d columns instead of %d", len(r.cells), columns)
	}
	for _, c := range r.cells {
		if c != strings.Join(strings.Fields(c), " ") {
			return fmt.Errorf("stray blanks in %q", c)
		}
	}
	if n, err := strconv.Atoi(r.cells[0]); err == nil {
		if n <= *last {
			return fmt.Errorf("number %d does not follow %d", n, *last)
		}
		*last = n
	}
	return nil
}
