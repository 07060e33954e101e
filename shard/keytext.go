package shard

import (
	"fmt"
	"strconv"
	"strings"
)

// FormatKey writes a full key for people, without its keyspace prefix: printable
// ASCII as it is, a backslash as \\, every other byte as \xNN.
func FormatKey(key []byte) string {
	if len(key) == 0 {
		return ""
	}
	return FormatUserKey(key[1:])
}

// FormatUserKey is FormatKey for a key without a keyspace prefix.
func FormatUserKey(key []byte) string {
	var s strings.Builder
	for _, c := range key {
		switch {
		case c == '\\':
			s.WriteString(`\\`)
		case c >= 0x20 && c < 0x7f:
			s.WriteByte(c)
		default:
			fmt.Fprintf(&s, `\x%02x`, c)
		}
	}
	return s.String()
}

// ParseUserKey reads what FormatUserKey wrote. Bytes outside ASCII are taken as
// they are, so that a UTF-8 terminal works too.
func ParseUserKey(text string) ([]byte, error) {
	key := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			key = append(key, text[i])
			continue
		}
		if strings.HasPrefix(text[i:], `\\`) {
			key = append(key, '\\')
			i++
			continue
		}
		if len(text)-i >= 4 && text[i+1] == 'x' {
			if v, err := strconv.ParseUint(text[i+2:i+4], 16, 8); err == nil {
				key = append(key, byte(v))
				i += 3
				continue
			}
		}
		return nil, &InvalidError{Field: "key", Reason: fmt.Sprintf(`%q: a backslash is written \\, a byte \xNN`, text)}
	}
	return key, nil
}
