package kafkasource

import "testing"

// The numbers are those of Kafka's own tests (UtilsTest.testMurmur2), and of its
// partitioner: another hash would take every key for one that has moved.
func TestMurmur2(t *testing.T) {
	for key, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("%q: %d, want %d", key, got, want)
		}
	}
}

// A key that stands elsewhere than the partitioner puts it today has no order.
func TestPlaced(t *testing.T) {
	at := int32(murmur2([]byte("abc"))&0x7fffffff) % 3
	for partition := range int32(3) {
		if got := placed([]byte("abc"), partition, 3); got != (partition == at) {
			t.Errorf("partition %d of 3: %v", partition, got)
		}
	}
	if !placed(nil, 0, 1) || placed(nil, 0, 2) {
		t.Error("without a key only a topic of one partition has an order")
	}
}
