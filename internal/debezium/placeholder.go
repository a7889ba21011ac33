package debezium

// placeholders are what an untouched long value looks like.
type placeholders struct{ text string }

func newPlaceholders(text string) placeholders { return placeholders{text: text} }
