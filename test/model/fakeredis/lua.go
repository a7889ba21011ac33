package fakeredis

import (
	"fmt"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/parse"
)

// A run is one script under way.
type run struct {
	// plain: without a shebang. Then what needs memory is refused on a full
	// Redis, until the script has written.
	plain bool
	wrote bool
}

// mayGrow reports whether a command that needs memory is let through on a full
// Redis. Outside a script it is not; inside one that has a shebang it is, since
// without allow-oom the script would not have begun.
func (r *run) mayGrow() bool { return r != nil && (!r.plain || r.wrote) }

// vm is one Lua that keeps the scripts it has compiled.
type vm struct {
	state    *lua.LState
	compiled map[string]*lua.LFunction
}

func newVM(r *Redis) *vm {
	l := lua.NewState(lua.Options{SkipOpenLibs: true, RegistrySize: 1 << 14, RegistryMaxSize: 1 << 18})
	for name, open := range map[string]lua.LGFunction{
		lua.BaseLibName: lua.OpenBase, lua.StringLibName: lua.OpenString,
		lua.TabLibName: lua.OpenTable, lua.MathLibName: lua.OpenMath,
	} {
		l.Push(l.NewFunction(open))
		l.Push(lua.LString(name))
		l.Call(1, 0)
	}
	redis := l.NewTable()
	redis.RawSetString("call", l.NewFunction(func(l *lua.LState) int { return call(l, r, true) }))
	redis.RawSetString("pcall", l.NewFunction(func(l *lua.LState) int { return call(l, r, false) }))
	l.SetGlobal("redis", redis)
	structs := l.NewTable()
	structs.RawSetString("pack", l.NewFunction(pack))
	structs.RawSetString("unpack", l.NewFunction(unpack))
	l.SetGlobal("struct", structs)
	return &vm{l, map[string]*lua.LFunction{}}
}

// Eval runs a script as EVAL does.
func (r *Redis) Eval(source string, keys, args []string) any {
	body, flags, shebang := source, "", strings.HasPrefix(source, "#!lua")
	if shebang {
		flags, body, _ = strings.Cut(source, "\n")
		body = "\n" + body
	}
	if shebang && r.Full && !strings.Contains(flags, "allow-oom") {
		return Error("OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'")
	}
	l := r.lua.state
	f := r.lua.compiled[source]
	if f == nil {
		chunk, err := parse.Parse(strings.NewReader(body), "script")
		if err != nil {
			return Error("ERR Error compiling script: " + err.Error())
		}
		proto, err := lua.Compile(chunk, "script")
		if err != nil {
			return Error("ERR Error compiling script: " + err.Error())
		}
		f = l.NewFunctionFromProto(proto)
		r.lua.compiled[source] = f
	}
	l.SetGlobal("KEYS", texts(l, keys))
	l.SetGlobal("ARGV", texts(l, args))
	r.run = &run{plain: !shebang}
	defer func() { r.run = nil }()
	if err := l.CallByParam(lua.P{Fn: f, NRet: 1, Protect: true}); err != nil {
		if raised, ok := err.(*lua.ApiError); ok {
			if table, ok := raised.Object.(*lua.LTable); ok {
				return Error(table.RawGetString("err").String())
			}
		}
		return Error("ERR " + err.Error())
	}
	value := l.Get(-1)
	l.Pop(1)
	return fromLua(value)
}

func texts(l *lua.LState, values []string) *lua.LTable {
	table := l.CreateTable(len(values), 0)
	for _, value := range values {
		table.Append(lua.LString(value))
	}
	return table
}

func call(l *lua.LState, r *Redis, raise bool) int {
	args := make([]string, l.GetTop())
	for i := range args {
		switch value := l.Get(i + 1).(type) {
		case lua.LString:
			args[i] = string(value)
		case lua.LNumber:
			args[i] = strconv.FormatFloat(float64(value), 'f', -1, 64)
		default:
			l.RaiseError("ERR Lua redis lib command arguments must be strings or integers")
		}
	}
	reply := r.Do(args...)
	value := toLua(l, reply)
	if _, failed := reply.(Error); failed && raise {
		l.Error(value, 1)
	}
	l.Push(value)
	return 1
}

func toLua(l *lua.LState, reply any) lua.LValue {
	switch reply := reply.(type) {
	case nil:
		return lua.LFalse
	case int64:
		return lua.LNumber(reply)
	case string:
		return lua.LString(reply)
	case Status:
		table := l.NewTable()
		table.RawSetString("ok", lua.LString(reply))
		return table
	case Error:
		table := l.NewTable()
		table.RawSetString("err", lua.LString(reply))
		return table
	case []any:
		table := l.CreateTable(len(reply), 0)
		for i, one := range reply {
			table.RawSetInt(i+1, toLua(l, one))
		}
		return table
	default:
		panic(fmt.Sprintf("reply %#v", reply))
	}
}

func fromLua(value lua.LValue) any {
	switch value := value.(type) {
	case lua.LBool:
		if value {
			return int64(1)
		}
		return nil
	case lua.LNumber:
		return int64(value)
	case lua.LString:
		return string(value)
	case *lua.LTable:
		if text, ok := value.RawGetString("err").(lua.LString); ok {
			return Error(text)
		}
		if text, ok := value.RawGetString("ok").(lua.LString); ok {
			return Status(text)
		}
		list := []any{}
		for i := 1; ; i++ {
			one := value.RawGetInt(i)
			if one == lua.LNil {
				return list
			}
			list = append(list, fromLua(one))
		}
	default:
		return nil
	}
}

// sizes reads a format of unsigned big-endian integers, such as >I4I4: the only
// ones that the scripts use.
func sizes(l *lua.LState, format string) []int {
	rest, ok := strings.CutPrefix(format, ">")
	if !ok {
		l.RaiseError("struct: format %q is not known here", format)
	}
	var list []int
	for ; rest != ""; rest = rest[2:] {
		if len(rest) < 2 || rest[0] != 'I' || rest[1] < '1' || rest[1] > '8' {
			l.RaiseError("struct: format %q is not known here", format)
		}
		list = append(list, int(rest[1]-'0'))
	}
	return list
}

func pack(l *lua.LState) int {
	var text []byte
	for i, size := range sizes(l, l.CheckString(1)) {
		n := uint64(l.CheckNumber(i + 2))
		for shift := 8 * (size - 1); shift >= 0; shift -= 8 {
			text = append(text, byte(n>>shift))
		}
	}
	l.Push(lua.LString(text))
	return 1
}

func unpack(l *lua.LState) int {
	text, at := l.CheckString(2), l.OptInt(3, 1)-1
	list := sizes(l, l.CheckString(1))
	for _, size := range list {
		if len(text) < at+size {
			l.RaiseError("data string too short")
		}
		var n uint64
		for range size {
			n = n<<8 | uint64(text[at])
			at++
		}
		l.Push(lua.LNumber(n))
	}
	// And where it would go on.
	l.Push(lua.LNumber(at + 1))
	return len(list) + 1
}
