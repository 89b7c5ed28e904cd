package wire

import (
	"reflect"
	"unsafe"

	"bazil.org/fuse"
)

// rawOption is the mount option of the given name, which fusermount3 is told: the
// library knows no options for noexec and noatime, which users may give without being
// root. Its options are functions on a type of its own, whose field
// "options" has the words for fusermount3.
func rawOption(name string) fuse.MountOption {
	kind := reflect.TypeFor[fuse.MountOption]()
	set := func(args []reflect.Value) []reflect.Value {
		field := args[0].Elem().FieldByName("options")
		options := reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem()
		options.SetMapIndex(reflect.ValueOf(name), reflect.ValueOf(""))
		return []reflect.Value{reflect.Zero(kind.Out(0))}
	}
	return reflect.MakeFunc(kind, set).Interface().(fuse.MountOption)
}
