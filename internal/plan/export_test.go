package plan

// Whole is whole, for tests.
var Whole = whole
