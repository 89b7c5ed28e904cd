package crash

// Size returns how many bytes of memory, and of the file, the bytes of operations take.
func (l *Log) Size() (memory, file int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(l.store.inMemory) * segmentSize, (l.store.slots - int64(len(l.store.free))) * segmentSize
}
