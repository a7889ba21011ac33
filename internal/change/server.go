package change

import (
	"errors"
	"slices"
)

// OfServer reports whether an error of the database speaks of the connection or of the
// server's own state, so that the same statement may be answered another time. One with
// an SQLSTATE of another class is about what the statement says or has met in rows.
// https://www.postgresql.org/docs/current/errcodes-appendix.html
func OfServer(err error) bool {
	code := SQLState(err)
	switch code {
	case "53400", "25P04": // a limit of files or of time that somebody has set would be met again
		return false
	}
	return len(code) != 5 || slices.Contains([]string{"08", "25", "28", "3D", "40", "53", "55", "57", "58"}, code[:2])
}

// SQLState is what the server itself has said an error is; empty if it has not.
func SQLState(err error) string {
	type coded interface {
		error
		SQLState() string
	}
	if said, ok := errors.AsType[coded](err); ok {
		return said.SQLState()
	}
	return ""
}
