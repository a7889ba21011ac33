package connect

import (
	"regexp"
	"slices"
	"strings"
)

// State of a connector or a task.
type State string

// States that Connect tells. There are more, which pass.
const (
	Running State = "RUNNING"
	Paused  State = "PAUSED"
	Stopped State = "STOPPED"
	Failed  State = "FAILED"
)

// Status of a connector.
type Status struct {
	Name      string `json:"name"`
	Connector Part   `json:"connector"`
	Tasks     []Task `json:"tasks"`
}

// A Part is what a worker runs.
type Part struct {
	State  State  `json:"state"`
	Worker string `json:"worker_id"`
	Trace  string `json:"trace,omitempty"` // Java's, of what has failed
}

// A Task of a connector; Debezium's for PostgreSQL has one.
type Task struct {
	ID int `json:"id"`
	Part
}

// Failed reports whether the connector or a task has failed: it stays so until
// somebody restarts it.
func (s Status) Failed() bool {
	return s.Connector.State == Failed || slices.ContainsFunc(s.Tasks, func(t Task) bool { return t.State == Failed })
}

// Running reports whether changes are being sent. Between two tasks there is
// none.
func (s Status) Running() bool {
	return s.Connector.State == Running && len(s.Tasks) > 0 &&
		!slices.ContainsFunc(s.Tasks, func(t Task) bool { return t.State != Running })
}

// Reason says in one line why the connector, or the last of its tasks that has,
// has failed; it is empty if none has.
func (s Status) Reason() string {
	reason := s.Connector.Reason()
	for _, t := range s.Tasks {
		if t.State == Failed {
			reason = t.Reason()
		}
	}
	return reason
}

// Reason says in one line why a part has failed: what it was doing and what went
// wrong at the bottom of the trace.
func (p Part) Reason() string {
	first, last := "", ""
	for line := range strings.Lines(p.Trace) {
		line = strings.TrimRight(line, "\r\n")
		cause, isCause := strings.CutPrefix(line, "Caused by: ")
		switch {
		case first == "":
			first = withoutClass(line)
		case isCause:
			last = withoutClass(cause)
		}
	}
	if last == "" || strings.Contains(first, last) {
		return oneLine(first)
	}
	return oneLine(strings.TrimRight(first, ".") + ": " + last)
}

// withoutClass takes the class of an exception off, if there is more than that.
func withoutClass(line string) string {
	class, message, found := strings.Cut(line, ": ")
	if found && message != "" && !strings.Contains(class, " ") {
		return message
	}
	return line
}

var spaces = regexp.MustCompile(`\s+`)

// oneLine makes one line of a message, without the logins of URLs, and a short
// one: what matters most often stands at its end.
func oneLine(text string) string {
	text = withoutInsides(strings.TrimSpace(spaces.ReplaceAllString(withoutLogins(text), " ")))
	if runes := []rune(text); len(runes) > messageMax {
		text = string(runes[:messageMax/2]) + " … " + string(runes[len(runes)-messageMax/2:])
	}
	return text
}

// insidesMax is what brackets may hold, in bytes, and still be shown.
const insidesMax = 40

// withoutInsides takes out what Debezium prints of its insides, in brackets.
func withoutInsides(text string) string {
	var b strings.Builder
	depth, start, done := 0, 0, 0
	for i := range len(text) {
		switch text[i] {
		case '[':
			if depth == 0 {
				start = i
			}
			depth++
		case ']':
			if depth == 0 {
				continue
			}
			if depth--; depth == 0 && i-start > insidesMax {
				b.WriteString(text[done:start] + "[…]")
				done = i + 1
			}
		}
	}
	return b.String() + text[done:]
}
