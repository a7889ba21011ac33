package kafkasource

import "encoding/binary"

// placed reports whether a record stands in the partition in which Kafka's own
// partitioner puts its key, with as many partitions as there are now. Where
// partitions were added a key has moved, and what is left of it in the old one has
// no order with what is in the new one.
func placed(key []byte, partition int32, partitions int) bool {
	if partitions <= 1 {
		return true
	}
	return key != nil && int32(murmur2(key)&0x7fffffff)%int32(partitions) == partition
}

// murmur2 is the hash of Kafka's partitioner (org.apache.kafka.common.utils.Utils).
func murmur2(b []byte) uint32 {
	const seed, m, r = 0x9747b28c, 0x5bd1e995, 24
	h := uint32(seed) ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := binary.LittleEndian.Uint32(b) * m
		k ^= k >> r
		h = h*m ^ k*m
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(b[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}
