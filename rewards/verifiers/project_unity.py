"""An answer in C, made ready to stand beside Unity's tests without having seen them.

    headers  preprocessed by itself in a box that holds only the answer; what its own lines come to, macros it defines
             and removes among them, is judged here, and that very text is what the tests read for it
    sources  preprocessed and compiled in such a box, so no `#include` or `.incbin` finds a test; the words the
             preprocessor leaves, and the sections and symbols of the object, are judged here, and the object is linked

So words that are pasted, spliced, spelled with digraphs or read only beside the tests are seen as the compiler sees
them, and what is judged is what is built.
"""

from __future__ import annotations

import posixpath
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rewards import building
from rewards.bench import Bench
from rewards.languages import Language

#: Functions of the C library that Unity and tests call: none is the answer's.
NEEDED = ("longjmp", "_longjmp", "siglongjmp", "_setjmp", "strcmp", "strncmp", "strcasecmp", "memcmp", "strlen")
#: With external linkage these are the library's in any C program. What Unity prints with would tell the answer what was
#: expected, before a failure is counted.
_LIBRARY = frozenset(NEEDED) | frozenset(
    re.findall(
        r"\w+",
        """
    abort abs atexit atof atoi atol atoll bsearch calloc div exit free getenv labs ldiv llabs lldiv malloc mblen
    mbtowc mbstowcs qsort rand realloc srand strtod strtof strtol strtold strtoll strtoul strtoull system
    wctomb wcstombs setjmp sigsetjmp raise signal memchr memcpy memmove memset strcat strchr strcoll strcpy
    strcspn strdup strndup strerror strncat strncpy strpbrk strrchr strspn strstr strtok strtok_r strxfrm
    clearerr fclose feof ferror fflush fgetc fgetpos fgets fopen fprintf fputc fputs fread
    freopen fscanf fseek fsetpos ftell fwrite getc getchar gets perror printf putc putchar putchar_unlocked puts
    remove rename rewind scanf setbuf setvbuf snprintf sprintf sscanf tmpfile tmpnam ungetc vfprintf vfscanf
    vprintf vscanf vsnprintf vsprintf vsscanf isalnum isalpha isblank iscntrl isdigit isgraph
    islower isprint ispunct isspace isupper isxdigit tolower toupper acos asin atan atan2 cbrt ceil ceilf
    copysign cos exp exp2 expm1 fabs fabsf fabsl floor floorf fmax fmin fmod frexp hypot isinf isinff isnan
    isnanf ldexp llround log log10 log1p log2 lround modf nan nanf nearbyint pow powf remainder rint round
    roundf sin sqrt sqrtf tan tgamma trunc asctime clock ctime difftime gmtime localtime mktime strftime time
    """,
    )
)
_PROBE = "assay_probe.c"
C_TEXTS = r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
_MARKER = re.compile(r'# \d+ "((?:[^"\\]|\\.)*)"((?: \d)*)')
_SYSTEM = re.compile(
    r"/usr/(?:lib/gcc/[^/]+/[^/]+/include(?:-fixed)?|(?:local/)?include(?:/[\w]+-linux-gnu)?)/([\w./+-]+)"
)
#: What shows the frames of callers. A pointer to a variable does too, but then their layout has to be known.
_FRAMES = (
    r"\b__builtin_(?:frame_address|return_address|extract_return_addr|frob_return_addr|apply\w*|return|longjmp|setjmp\w*"
    r"|update_setjmp_buf|unwind_init|eh_\w+|dwarf_\w+|init_dwarf\w*|stack_\w+|nonlocal_\w+|call_with_static_chain)\b"
)
_ASM = r"\b(?:asm|__asm|__asm__)\b"
#: The C library's own headers rename functions; no instruction has such a name.
_RENAMED = r'(?!\s*\(\s*(?:""\s*)*"(?:__\w+|\w+64)"\s*\))'
_NOT_IN_SOURCES = re.compile(rf"{_ASM}{_RENAMED}|{_FRAMES}")
_NOT_IN_HEADERS = re.compile(
    rf"{_ASM}|{_FRAMES}|##|%:|\\|//|/\*|\?\?|[\"']|\(\s*(?:\{{|<%)|(?:\[|<:)\s*(?:\[|<:)|\b_Pragma\b"
    r"|\b\w*(?:UNITY_|TEST_|Unity|RUN_TEST|assay_)\w*|\b__BASE_FILE__\b|\b__FILE__\b"
)
_OF_THE_LIBRARY = re.compile(rf"\b(?:{'|'.join(sorted(_LIBRARY))})\s*\)*\s*\(")
_ATTRIBUTE = re.compile(r"\b__attribute(?:__)?\b\s*")
_ATTRIBUTES = frozenset(
    (
        *("access", "aligned", "alloc_size", "always_inline", "cold", "const", "deprecated", "fallthrough", "flatten"),
        *("format", "gnu_inline", "hot", "leaf", "malloc", "may_alias", "noinline", "nonnull", "noreturn", "nothrow"),
        *("packed", "printf", "pure", "read_only", "read_write", "returns_nonnull", "scanf", "sentinel", "unused"),
        *("used", "warn_unused_result", "write_only", "none"),
    )
)
_GUARD = re.compile(r"__\w*_H_*")
_SECTION = re.compile(
    r"(?:\.rela)?\.(?:text|data|bss|rodata|tdata|tbss|eh_frame|group|debug_\w+|note\.GNU-stack|note\.gnu\.property)"
    r"(?:\.[\w.$-]*)?|\.(?:comment|llvm_addrsig|symtab|strtab|shstrtab|symtab_shndx)|"
)
_SECTION_KINDS = frozenset(
    (0, 1, 2, 3, 4, 7, 8, 17, 18, 0x70000001, 0x6FFF4C03)
)  #: of ELF; no arrays of functions to run
_RESERVED = re.compile(r"__.*|_[A-Z].*|_dl_.*|_start|_init|_fini|_exit|_end|_edata|_etext|assay_.*")


def check_build(build: Sequence[str], files: Sequence[str]) -> str:
    """What is wrong with a record's `build`, or "": it has to be one call of a compiler that names each source."""
    if not build or not re.fullmatch(r"/(?:[\w.-]+/)*(?:[\w-]*gcc|clang|cc)(?:-\d+)?", build[0]):
        return "report 'unity' needs a build that calls gcc or clang itself"
    missing = [path for path in files if path.endswith(".c") and path not in build]
    return f"the build does not name {', '.join(missing)}" if missing else ""


def alone(
    bench: Bench,
    language: Language,
    build: Sequence[str],
    files: Mapping[str, str],
    words: frozenset[str],
) -> tuple[tuple[str, ...], dict[str, bytes]]:
    """The build with an answer's objects in the place of its sources, and the files that stand for the answer:
    none that was not judged.

    `words` are the tests' own. Raises CompileError, saying what has no place.
    """
    box = {path: text.encode("utf-8", "replace") for path, text in files.items()}
    flags, made, linked = _flags(build), dict[str, bytes](), list(build)
    own = {posixpath.normpath(path) for path in files}
    for number, path in enumerate(sorted(files, key=lambda path: path.endswith(".c"))):
        if path.endswith(".h"):
            probe = {**box, _PROBE: f'#include "{path}"\n'.encode()}
            text = _preprocessed(bench, language, (*flags, "-dD", _PROBE), probe)
            text = _header(path, text, own)
            if complaint := _wrong_header(text, words):
                raise building.CompileError(f"{path}: {complaint}")
            guard = f"assay_header_{number}"
            made[path] = f"#ifndef {guard}\n#define {guard}\n{text}\n#endif\n".encode("utf-8", "replace")
        elif path.endswith(".c"):
            text = _bare(_preprocessed(bench, language, (*flags, "-P", path), box))
            if found := _NOT_IN_SOURCES.search(text):
                raise building.CompileError(f"{path}: {found[0]} has no place in an answer that shares tests' process")
            output = f"assay_{number}.o"
            argv = (*flags, "-c", path, "-o", output)
            made[output] = building.compile_in_box(bench, language, argv, box, output)
            if complaint := _wrong_object(made[output]):
                raise building.CompileError(f"{path}: {complaint}")
            linked = [output if argument == path else argument for argument in linked]
    return tuple(linked), made


def _flags(build: Sequence[str]) -> tuple[str, ...]:
    """The compiler and what says how one source is compiled."""
    rest, kept = iter(build), list[str]()
    for argument in rest:
        if argument in ("-o", "-Xlinker", "-T"):
            next(rest, None)
        elif not re.match(r"-(?:o|l|L|Wl,|static$|shared$|c$|E$|S$)", argument) and (
            argument.startswith("-") or not re.search(r"\.[coas]$", argument)
        ):
            kept.append(argument)
    return tuple(kept)


def _preprocessed(bench: Bench, language: Language, argv: tuple[str, ...], box: Mapping[str, bytes]) -> str:
    output = "assay.i"
    made = building.compile_in_box(bench, language, (argv[0], "-E", *argv[1:], "-o", output), box, output)
    return made.decode("utf-8", "replace")


def _bare(code: str) -> str:
    """Preprocessed text without what stands in quotes, but for single words, by which `asm` renames."""
    return re.sub(C_TEXTS, lambda found: found[0] if re.fullmatch(r'"\w*"', found[0]) else '"?"', code)


# --- headers --------------------------------------------------------------------------------------------------------


def _header(path: str, text: str, own: Iterable[str]) -> str:
    """What a header's own lines come to: of `text` (-E -dD) all that stands in it, and an `#include` for other files.

    A marker that the answer wrote itself is believed, and only changes what is kept; what is kept is judged and read.
    """
    kept, inside, path = list[str](), False, posixpath.normpath(path)
    for line in text.split("\n"):
        marker = _MARKER.fullmatch(line)
        if marker is None:
            if inside and re.match(r"#(?!define |undef )", line):
                raise building.CompileError(f"{path}: {line[:60]} has no place in a header that the tests include")
            if inside:
                kept.append(line)
            continue
        file, entered = posixpath.normpath(marker[1]), "1" in marker[2].split()
        if inside and entered and file != path:
            system = _SYSTEM.fullmatch(file)
            if system is not None:
                kept.append(f"#include <{system[1]}>")
            elif file in own and file.endswith(".h"):
                kept.append(f'#include "{posixpath.relpath(file, posixpath.dirname(path) or ".")}"')
            else:
                raise building.CompileError(f"{path}: includes {file[:60]}, no header of its own or of the system")
        inside = file == path
    return "\n".join(kept)


def _wrong_header(text: str, words: frozenset[str]) -> str:
    """What is wrong with a header as the tests will read it, or ""."""
    plain, bodies = list[str](), list[str]()
    for line in text.split("\n"):
        if line.startswith("#include "):  # ours
            continue
        said = re.sub(C_TEXTS, "0", line)
        directive = re.match(r"#(define|undef) (\w+)(\(.*?\))?", said)
        if directive is not None:
            word, body = directive[2], said[directive.end() :]
            guard = directive[1] == "define" and not body.strip() and _GUARD.fullmatch(word)
            if word in words or (word.startswith(("assay_", "__")) and not guard):
                return f"defines {word}, a word of the tests'"
            if not _balanced(body) or re.search(r"\b(?:return|goto|break|continue|switch|case|default)\b", body):
                return f"the macro {word} would change the statement it stands in"
            if complaint := _wrong_attribute(body):
                return complaint
            bodies.append(f"{word} {body}")
        elif "#" in said:
            return f"{said.strip()[:60]} has no place in a header that the tests include"
        else:
            plain.append(said)
    code = "\n".join(plain)
    for each in (code, *bodies):
        if found := _NOT_IN_HEADERS.search(each):
            return f"{' '.join(found[0].split())[:60]} has no place in a header that the tests include"
    outside = re.sub("<%", "{", re.sub("%>", "}", code))
    while outside != (outside := re.sub(r"\{[^{}]*\}", ";", outside)):
        pass
    if found := _OF_THE_LIBRARY.search(outside):
        return f"declares {found[0].rstrip(' (')}, a function of the C library"
    return _wrong_attribute(code) or ("" if _balanced(code) else "its brackets do not close")


def _wrong_attribute(code: str) -> str:
    """An attribute must be written out, as the preprocessor leaves it, and be one that only informs."""
    for found in _ATTRIBUTE.finditer(code):
        depth, end = 0, found.end()
        for end in range(found.end(), len(code)):
            depth += (code[end] == "(") - (code[end] == ")")
            if depth == 0:
                break
        inside = code[found.end() : end + 1]
        if depth or not inside.startswith("("):
            return "an attribute that is not written out has no place in a header that the tests include"
        for word in re.findall(r"\b[A-Za-z_]\w*", inside):
            if word.strip("_") not in _ATTRIBUTES:
                return f"the attribute {word} has no place in a header that the tests include"
    return ""


def _balanced(code: str) -> bool:
    closing, opened = {")": "(", "]": "[", "}": "{"}, list[str]()
    for character in re.sub("<%", "{", re.sub("%>", "}", re.sub("<:", "[", re.sub(":>", "]", code)))):
        if character in "([{":
            opened.append(character)
        elif character in closing and (not opened or opened.pop() != closing[character]):
            return False
    return not opened


# --- objects --------------------------------------------------------------------------------------------------------


def _wrong_object(data: bytes) -> str:
    """What an object file holds that would run unasked or stand in for what is not the answer's, or ""."""
    try:
        for name, kind in _sections(data):
            if not _SECTION.fullmatch(name) or kind not in _SECTION_KINDS:
                return f"the section {name[:60]} is none that functions and variables need"
        for name, info, place in _symbols(data):
            if info & 15 == 10:
                return f"{name[:60]} is found by a function that runs before everything else (ifunc)"
            if info >> 4 and place and (name in _LIBRARY or _RESERVED.fullmatch(name)):
                return f"defines {name[:60]}, which is not its own to define"
    except (struct.error, ValueError, IndexError) as error:
        return f"its object cannot be read: {error}"
    return ""


def _table(data: bytes) -> list[tuple[int, ...]]:
    """The section headers of a relocatable ELF file: name, type, flags, address, offset, size, link, ..."""
    if data[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", data, 16) != (1,):
        raise ValueError("not a relocatable ELF file of 64 bits, low byte first")
    (offset,) = struct.unpack_from("<Q", data, 40)
    size, count, _ = struct.unpack_from("<3H", data, 58)
    if size != 64 or not count:
        raise ValueError("too many sections")
    return [struct.unpack_from("<IIQQQQIIQQ", data, offset + number * size) for number in range(count)]


def _sections(data: bytes) -> Iterator[tuple[str, int]]:
    table = _table(data)
    (names,) = struct.unpack_from("<H", data, 62)
    for row in table:
        yield _string(data, table[names][4] + row[0]), row[1]


def _symbols(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Name, info (binding and type) and section (0: defined elsewhere) of every symbol."""
    table = _table(data)
    for row in table:
        if row[1] == 2:
            for at in range(row[4], row[4] + row[5], 24):
                name, info, _, place = struct.unpack_from("<IBBH", data, at)
                yield _string(data, table[row[6]][4] + name), info, place


def _string(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode("utf-8", "replace")
