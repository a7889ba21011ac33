package guard

import (
	"fmt"
	"time"
)

// Begun is the reply of Begin.
type Begun struct {
	Status string        // Hit, Wait or Leased
	Left   time.Duration // Wait: until the other's lease ends
	// Err is what Redis says of this key alone, such as that it holds a list.
	Err error
}

// ParseBegin reads the reply of Begin. The value of a hit is not looked at.
func ParseBegin(reply any) (Begun, error) {
	fields, _ := reply.([]any)
	switch {
	case len(fields) == 2 && fields[0] == Hit:
		return Begun{Status: Hit}, nil
	case len(fields) == 1 && fields[0] == Leased:
		return Begun{Status: Leased}, nil
	case len(fields) == 2 && fields[0] == Wait:
		if left, ok := fields[1].(int64); ok {
			return Begun{Status: Wait, Left: time.Duration(left) * time.Millisecond}, nil
		}
	}
	return Begun{}, fmt.Errorf("reply of script begin: %v", reply)
}
