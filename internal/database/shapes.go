package database

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/unstale/unstale/internal/value"
)

// Shapes returns what rows of the named tables look like as JSON, one shape
// for each name. That of a table that does not exist has no columns.
func Shapes(ctx context.Context, conn *pgx.Conn, names []Name) ([]value.Shape, error) {
	return nil, errors.ErrUnsupported
}
