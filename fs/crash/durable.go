package crash

// ReadDurable reads what a power cut now would surely leave of a file's bytes from off on
// into p, and returns how many there are: fewer than len(p) only at the end of the file.
// base reads what the syncs of the file itself have left, which is baseSize bytes long.
func (l *Log) ReadDurable(i Inode, p []byte, off, baseSize int64, base func(p []byte, off int64) (int, error)) (int, error) {
	n, err := base(p[:max(min(int64(len(p)), baseSize-off), 0)], off)
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(p[n:])
	size := baseSize
	err = l.eachDurable(i, func(op *Op) error {
		size = op.sizeAfter(size)
		from, to := max(op.Off, off), min(op.Off+op.Length, off+int64(len(p)))
		switch {
		case !op.durable: // but for a size
		case op.Kind == Truncate:
			if op.Size < off+int64(len(p)) {
				clear(p[max(op.Size-off, 0):])
			}
		case from >= to:
		case op.Kind == Fallocate:
			clear(p[from-off : to-off])
		default:
			return l.store.read(&op.Bytes, from-op.Off, p[from-off:to-off])
		}
		return nil
	})
	return int(max(min(int64(len(p)), size-off), 0)), err
}

// DurableSize returns the size that a power cut now would surely leave, of a file whose
// own syncs have left baseSize bytes.
func (l *Log) DurableSize(i Inode, baseSize int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	size := baseSize
	_ = l.eachDurable(i, func(op *Op) error {
		size = op.sizeAfter(size)
		return nil
	})
	return size
}

// sizeAfter returns what becomes of a file's size by what is durable of an operation.
func (op *Op) sizeAfter(size int64) int64 {
	switch {
	case !op.durable:
		return max(size, op.early)
	case op.Kind == Truncate:
		return op.Size
	}
	return max(size, op.end())
}

// eachDurable calls fn for the changes of a file's bytes that no sync of the file has taken
// over and that are durable, or have an early size that is. l.mu must be held.
func (l *Log) eachDurable(i Inode, fn func(*Op) error) error {
	ops := l.inodes[i]
	if ops == nil {
		return nil
	}
	for _, op := range ops.data {
		if !op.durable && !op.sized {
			continue
		}
		if err := fn(op); err != nil {
			return err
		}
	}
	return nil
}
