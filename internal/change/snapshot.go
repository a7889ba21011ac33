package change

import "slices"

// Snapshot says which transactions are visible on the primary. It is
// pg_current_snapshot() and what must come with it for the answer to count:
// the server's identity and its place in the log.
type Snapshot struct {
	XMin, XMax uint64   // full transaction ids, 64 bits
	XIP        []uint64 // in progress, ascending
	// Next is the number that no transaction had yet when s was asked, nor any above
	// it; zero where nobody says so. From XMax up to it they were running.
	Next uint64
	// InsertLSN is pg_current_wal_insert_lsn().
	InsertLSN uint64
	// Unknown: there is no primary to ask. Everything counts as visible, and nobody
	// can tell where the log is.
	Unknown bool
}

// Visible reports whether the transaction with the 32-bit id xid, taken from
// the log, is visible in s.
func (s *Snapshot) Visible(xid uint32) bool {
	if s.Unknown {
		return true
	}
	full := s.widen(xid)
	if full < s.XMin {
		return true
	}
	if full >= s.XMax {
		return false
	}
	_, running := slices.BinarySearch(s.XIP, full)
	return !running
}

// Foreign reports whether the transaction with the 32-bit id xid is none of the
// primary's: whoever knew xid before s was asked knows it from another server. That
// it is not Foreign proves nothing.
func (s *Snapshot) Foreign(xid uint32) bool { return s.Next != 0 && s.widen(xid) >= s.Next }

// widen gives xid the epoch that brings it nearest to XMax: the log has the
// lower 32 bits only, and no transaction in it is 2^31 away from now.
func (s *Snapshot) widen(xid uint32) uint64 {
	full := s.XMax&^0xffffffff | uint64(xid)
	switch {
	case full >= s.XMax+1<<31 && full >= 1<<32:
		full -= 1 << 32
	case s.XMax >= 1<<31 && full < s.XMax-1<<31:
		full += 1 << 32
	}
	return full
}
