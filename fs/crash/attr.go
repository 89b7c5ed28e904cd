package crash

import "encoding/binary"

// The attributes of inodes: AttrMode is the mode with owner and group, see [ModeValue];
// AttrXattr is before the name of an extended attribute.
const (
	AttrMode  = "mode"
	AttrXattr = "xattr:"
)

// ModeValue is the value of AttrMode: type and permissions (inode(7)), owner and group.
func ModeValue(mode, uid, gid uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, mode)
	b = binary.LittleEndian.AppendUint32(b, uid)
	return binary.LittleEndian.AppendUint32(b, gid)
}

// ParseMode is the reverse of ModeValue.
func ParseMode(value []byte) (mode, uid, gid uint32) {
	return binary.LittleEndian.Uint32(value), binary.LittleEndian.Uint32(value[4:]), binary.LittleEndian.Uint32(value[8:])
}
