"""What assay can do with each of the 338 languages that DeepSeek-Coder-V2 lists (supported_langs.txt of its release).

    resolve("Racket")  ->  Resolution(kind=RUNS, row="racket", ...)

A name is exactly one of three things: a row of the language table runs it; a tool of Debian 12 can say whether a text
is well-formed, which is no proof that it does what was asked; or something is missing, and the sentence says what.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from assay.errors import DataError
from rewards.languages import LANGUAGES


class Kind(StrEnum):
    """What can be done with a language."""

    RUNS = "runs"
    CHECKED = "compiles only"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What a name stands for here."""

    name: str
    kind: Kind
    row: str = ""  #: of the language table, where it runs
    sentence: str = ""  #: how it is checked, what is missing, or what to know of the row


#: row -> the names it runs
_RUNS: dict[str, tuple[str, ...]] = {
    "ada": ("Ada",),
    "assembly": ("Assembly", "GAS"),
    "awk": ("AWK",),
    "bash": ("Shell",),
    "bc": ("BC",),
    "c": ("C",),
    "clojure": ("Clojure",),
    "cobol": ("COBOL",),
    "cobol free": ("COBOLFree",),
    "coffeescript": ("CoffeeScript",),
    "common lisp": ("Common Lisp",),
    "cpp": ("C++",),
    "crystal": ("Crystal",),
    "csharp": ("C#",),
    "dart": ("Dart",),
    "elixir": ("Elixir",),
    "emacs lisp": ("Emacs Lisp",),
    "erlang": ("Erlang",),
    "fish": ("Fish",),
    "fortran": ("Fortran",),
    "fortran fixed form": ("Fortran Fixed Form",),
    "fsharp": ("F#",),
    "gap": ("GAP",),
    "gnuplot": ("Gnuplot",),
    "go": ("Go",),
    "groovy": ("Groovy",),
    "haskell": ("Haskell",),
    "haxe": ("Haxe",),
    "java": ("Java",),
    "javascript": ("JavaScript",),
    "julia": ("Julia",),
    "kotlin": ("Kotlin",),
    "lean": ("Lean",),
    "literate coffeescript": ("Literate CoffeeScript",),
    "llvm": ("LLVM",),
    "lua": ("Lua",),
    "m4": ("M4",),
    "makefile": ("Makefile",),
    "maxima": ("Maxima",),
    "modula-2": ("Modula-2",),
    "nasm": ("NASM",),
    "nim": ("Nimrod",),
    "objective-c": ("Objective-C",),
    "objective-c++": ("Objective-C++",),
    "ocaml": ("OCaml",),
    "octave": ("Octave", "MATLAB"),
    "pascal": ("Pascal",),
    "perl": ("Perl",),
    "php": ("PHP", "HTML PHP"),
    "pike": ("Pike",),
    "powershell": ("PowerShell",),
    "python": ("Python",),
    "r": ("R", "S"),
    "racket": ("Racket",),
    "raku": ("Perl 6",),
    "rexx": ("REXX",),
    "ruby": ("Ruby",),
    "rust": ("Rust",),
    "scala": ("Scala",),
    "scheme": ("Scheme",),
    "smt": ("SMT",),
    "sql": ("SQL",),
    "standard ml": ("Standard ML",),
    "swift": ("Swift",),
    "systemverilog": ("SystemVerilog",),
    "tcl": ("Tcl",),
    "tcsh": ("Tcsh",),
    "typescript": ("TypeScript",),
    "vala": ("Vala",),
    "verilog": ("Verilog",),
    "vhdl": ("VHDL",),
    "zig": ("Zig",),
}

#: what else to know where the row is not quite the language
_NOTES: dict[str, str] = {
    "Assembly": "GNU syntax; what is written for NASM or MASM is not understood",
    "HTML PHP": "the page is run as a PHP script, and its output is the page",
    "MATLAB": "Octave runs the core language; toolboxes are missing",
    "Nimrod": "the old name of Nim; its early syntax may be refused",
    "S": "R implements the language; what only S-PLUS had is missing",
    "SQL": "SQLite's dialect",
    "Shell": "bash runs it, POSIX scripts included",
}

#: a tool of Debian 12, its package in brackets, that says whether a text is well-formed
_CHECKED: dict[str, str] = {
    "ANTLR": "antlr4 generates a parser from the grammar (antlr4)",
    "Agda": "agda --safe checks the module's types and that it ends (agda-bin)",
    "Apache Configuration": "apache2 -t reads it (apache2-bin)",
    "Arduino": "avr-g++ compiles it against the core library (gcc-avr arduino-core-avr)",
    "AspectJ": "ajc compiles it (aspectj)",
    "Asymptote": "asy compiles and draws it (asymptote)",
    "Augeas": "augparse reads the lens (augeas-tools)",
    "BST": "bibtex reads the style with an empty bibliography (texlive-binaries)",
    "Boogie": "boogie /noVerify resolves and checks its types (boogie)",
    "C2HS Haskell": "c2hs expands it and ghc compiles the result (c2hs ghc)",
    "CMake": "cmake -P reads it as a script (cmake)",
    "CSS": "Python's cssutils parses it (python3-cssutils)",
    "Csound": "csound --syntax-check-only reads it (csound)",
    "Csound Score": "csound --syntax-check-only reads it behind an empty orchestra (csound)",
    "Cython": "cython3 translates it and gcc compiles the result (cython3 gcc)",
    "Darcs Patch": "darcs apply --dry-run reads it in an empty repository (darcs)",
    "Debian Control File": "Python's debian.deb822 parses it (python3-debian)",
    "DeviceTree": "dtc compiles it (device-tree-compiler)",
    "Diff": "git apply --numstat parses it (git)",
    "ELPi": "elpi loads it and checks its types (elpi)",
    "Execline": "execlineb reads the script before it runs its first command (execline)",
    "FreeFem": "FreeFem++ -nw compiles it before it runs (freefem++)",
    "FreeMarker": "the engine compiles the template (libfreemarker-java)",
    "GLSL": "glslangValidator compiles it (glslang-tools)",
    "Genshi": "Python's genshi parses the template (python3-genshi)",
    "Gentoo Ebuild": "bash -n reads it, which it is (bash)",
    "Gentoo Eclass": "bash -n reads it, which it is (bash)",
    "Gettext Catalog": "msgfmt --check compiles it (gettext)",
    "GraphQL": "the parser of node-graphql reads it (node-graphql)",
    "Graphviz DOT": "dot -Tcanon parses it (graphviz)",
    "Groff": "groff -z -ww formats it and counts the warnings (groff)",
    "HLSL": "glslangValidator -D compiles it (glslang-tools)",
    "HTML": "tidy -errors reads it (tidy)",
    "HTML Django": "Django's template engine compiles it (python3-django)",
    "HTML ERB": "erb -x translates it and ruby -c reads the result (ruby)",
    "HTTP": "Python's http.client and email.parser read the message (python3)",
    "Handlebars": "handlebars compiles the template (handlebars)",
    "JAGS": "jags reads and compiles the model (jags)",
    "JFlex": "jflex generates the scanner and javac compiles it (jflex openjdk-17-jdk-headless)",
    "JSON": "Python's json parses it (python3)",
    "JSX": "esbuild --loader=jsx translates it (esbuild)",
    "Jasmin": "jasmin assembles it to a class file (jasmin-sable)",
    "Jupyter Notebook": "Python's json parses it and its code cells are compiled (python3)",
    "Kconfig": "kconfig-conf --listnewconfig reads it (kconfig-frontends)",
    "Less": "lessc --lint reads it (node-less)",
    "Lex": "flex generates the scanner and gcc compiles it (flex gcc)",
    "Lighttpd Configuration File": "lighttpd -tt reads it (lighttpd)",
    "LilyPond": "lilypond compiles it, without running Scheme of its own (lilypond)",
    "Linker Script": "ld -T links an empty object with it (binutils)",
    "Liquid": "Ruby's liquid parses the template strictly (ruby-liquid)",
    "Literate Agda": "agda --safe checks the module's types and that it ends (agda-bin)",
    "Mako": "Python's mako compiles the template (python3-mako)",
    "Mason": "Perl's HTML::Mason compiles the component (libhtml-mason-perl)",
    "Meson": "meson introspect --ast parses it (meson)",
    "NSIS": "makensis compiles it (nsis)",
    "Nginx Configuration File": "nginx -t reads it (nginx-core)",
    "Ninja": "ninja -n loads it (ninja-build)",
    "Nix": "nix-instantiate --parse reads it (nix-bin)",
    "OMG Interface Definition Language": "omniidl compiles it (omniidl)",
    "OpenCL": "clang -x cl -fsyntax-only compiles it (clang)",
    "OpenSCAD": "openscad exports it as CSG (openscad)",
    "POD": "podchecker reads it (perl)",
    "POV-Ray": "povray parses the scene before it renders one pixel (povray)",
    "PkgConfig": "pkgconf --validate reads it (pkgconf)",
    "Protocol Buffer": "protoc compiles it (protobuf-compiler)",
    "Puppet": "puppet parser validate reads it (puppet)",
    "QML": "qmllint parses it (qtdeclarative5-dev-tools)",
    "RHTML": "erb -x translates it and ruby -c reads the result (ruby)",
    "Ragel in Ruby Host": "ragel -R generates the machine and ruby -c reads it (ragel ruby)",
    "Rd": "R's tools::checkRd reads it (r-base-core)",
    "Ren'Py": "renpy compile reads the script in a bare project (renpy)",
    "SCSS": "sassc compiles it (sassc)",
    "SPARQL": "roqet -n parses the query (rasqal-utils)",
    "SWIG": "swig generates a wrapper from it (swig)",
    "Sass": "sassc --sass compiles it (sassc)",
    "Sieve": "sievec compiles it (dovecot-sieve)",
    "Slim": "slimrb -c compiles the template (ruby-slim)",
    "Smali": "the assembler makes a dex file of it (libsmali-java)",
    "Smarty": "PHP's Smarty compiles the template (smarty4)",
    "Stan": "rstan::stanc translates the model to C++ (r-cran-rstan)",
    "Stylus": "stylus compiles it (node-stylus)",
    "SuperCollider": "sclang compiles it; without a sound server nothing plays (supercollider-language)",
    "TeX": "pdflatex -draftmode -no-shell-escape typesets it (texlive-latex-base)",
    "Terminfo": "tic -c checks it (ncurses-bin)",
    "Thrift": "thrift --gen json compiles it (thrift-compiler)",
    "Treetop": "tt generates the parser and ruby -c reads it (ruby-treetop)",
    "Twig": "PHP's Twig parses the template (php-twig)",
    "Unity3D Asset": "Python's yaml parses its documents (python3-yaml)",
    "VCL": "varnishd -C compiles it (varnish)",
    "Velocity": "the engine compiles the template (velocity)",
    "WebAssembly": "wat2wasm assembles and validates it (wabt)",
    "XML": "xmllint --noout parses it (libxml2-utils)",
    "XQuery": "basex parses the query (basex)",
    "XS": "xsubpp translates it and gcc compiles the result (perl libperl-dev gcc)",
    "XSLT": "xsltproc compiles the stylesheet (xsltproc)",
    "YANG": "yanglint validates the module (libyang-tools)",
}

_UPSTREAM = "no row yet: Debian 12 has no tool-chain; an image would take {}"
_NO_ROW = "no row yet: Debian 12's {} would run it"
_VENDOR = "only inside {}, which cannot be had for a sandbox"
_DEAD = "no implementation that still builds: {}"
_FOREIGN = "it has no meaning outside of {}, which is not there"

#: what is missing: a sentence, or one of those above and what fills it
_MISSING: dict[str, str | tuple[str, str]] = {
    "ABAP": (_VENDOR, "SAP's application server"),
    "AGS Script": (_VENDOR, "Adventure Game Studio"),
    "AMD GPU": "an assembler is in LLVM, but running it needs an AMD GPU",
    "AMPL": (_VENDOR, "AMPL's own solver environment"),
    "ANSYS Parametric Design Language": (_VENDOR, "ANSYS"),
    "APL": (_UPSTREAM, "GNU APL's source"),
    "ASP": (_FOREIGN, "Microsoft's web server"),
    "ActionScript": (_UPSTREAM, "the Apache Royale compiler and a Flash player"),
    "Alloy": (_UPSTREAM, "the analyser's jar"),
    "AmbientTalk": (_DEAD, "its last release is of 2014 and for Java 6"),
    "AppleScript": (_VENDOR, "macOS"),
    "Arc": (_UPSTREAM, "Anarki, on Racket"),
    "AutoHotkey": (_VENDOR, "Windows"),
    "AutoIt": (_VENDOR, "Windows"),
    "BNF": "a notation with many dialects: there is no one tool that reads it",
    "Berry": (_UPSTREAM, "its source"),
    "BitBake": (_FOREIGN, "a tree of layers and recipes"),
    "BlitzBasic": (_UPSTREAM, "Blitz3D, which is for Windows"),
    "BlitzMax": (_UPSTREAM, "BlitzMax NG's archive"),
    "Bluespec": (_UPSTREAM, "the bsc compiler's archive"),
    "Boo": (_UPSTREAM, "its compiler for Mono"),
    "Brainfuck": "no row yet: Debian 12's beef would run it, but a program reads bytes and never fails",
    "BrightScript": (_UPSTREAM, "the brs interpreter from npm"),
    "Bro": (_UPSTREAM, "Zeek's own Debian repository"),
    "CADL": "a notation of the CADIE and openEHR tools: no free checker is packaged",
    "CUDA": "the compiler is NVIDIA's, which Debian keeps outside of main, and running needs an NVIDIA GPU",
    "CapDL": (_FOREIGN, "a build of seL4"),
    "Ceylon": (_DEAD, "it ended with version 1.3.3, for Java 8"),
    "Chapel": (_UPSTREAM, "Chapel's own Debian package"),
    "ChucK": "no row yet: Debian 12's chuck plays it in real time, which no limit of processor time measures",
    "Cirru": (_UPSTREAM, "one of its interpreters from npm"),
    "Click": (_FOREIGN, "the Click modular router"),
    "ColdFusion CFC": (_UPSTREAM, "the Lucee server"),
    "Cypher": (_FOREIGN, "a Neo4j database"),
    "DASM16": (_UPSTREAM, "an assembler and an emulator of the DCPU-16"),
    "DM": (_VENDOR, "the BYOND engine"),
    "Docker": "building an image needs a network and an engine, and a box has neither",
    "Dockerfile": "building an image needs a network and an engine, and a box has neither",
    "Dylan": (_UPSTREAM, "Open Dylan's archive"),
    "EBNF": "a notation with many dialects: there is no one tool that reads it",
    "Eiffel": (_UPSTREAM, "the Liberty Eiffel or Gobo archive"),
    "Elm": "Debian 12 has elm-compiler, but it fetches elm/core from the network and a box has none",
    "EmberScript": (_DEAD, "its compiler of 2014 needs a Node of its time"),
    "F*": (_UPSTREAM, "F*'s binary archive"),
    "Factor": (_UPSTREAM, "Factor's binary archive"),
    "Fancy": (_DEAD, "it ended in 2013 with Rubinius"),
    "Fantom": (_UPSTREAM, "Fantom's archive for Java"),
    "Felix": (_UPSTREAM, "its source"),
    "Fennel": (_UPSTREAM, "Fennel's single Lua file"),
    "Flux": (_FOREIGN, "an InfluxDB server"),
    "FoxPro": (_VENDOR, "Visual FoxPro on Windows"),
    "Futhark": (_UPSTREAM, "Futhark's binary archive"),
    "G-Code": (_FOREIGN, "a machine tool or a simulator of one"),
    "GDScript": (_UPSTREAM, "a headless Godot"),
    "GSQL": (_FOREIGN, "a TigerGraph database"),
    "Glyph": (_UPSTREAM, "its Ruby gem"),
    "Gosu": (_UPSTREAM, "the language's jars; Debian's package of this name is another tool"),
    "Grace": (_UPSTREAM, "minigrace"),
    "Gradle": "a build fetches its plug-ins from the network and a box has none",
    "Grammatical Framework": (_UPSTREAM, "GF's own Debian package"),
    "Groovy Server Pages": (_FOREIGN, "a Grails application"),
    "HCL": (_UPSTREAM, "Terraform, whose providers come from the network"),
    "Hy": (_UPSTREAM, "hy from PyPI"),
    "IGOR Pro": (_VENDOR, "Igor Pro"),
    "Idris": (_UPSTREAM, "Idris 2, bootstrapped on Chez Scheme"),
    "Inform 6 Template": (_FOREIGN, "the sources of Inform 7's compiler"),
    "Inno Setup": (_VENDOR, "Windows"),
    "Io": (_UPSTREAM, "Io's source"),
    "Isabelle": (_UPSTREAM, "Isabelle's archive, a gigabyte"),
    "J": (_UPSTREAM, "J's archive"),
    "JCL": (_VENDOR, "an IBM mainframe"),
    "JSONiq": (_UPSTREAM, "RumbleDB's jar"),
    "Jade": (_UPSTREAM, "pug, its successor, from npm"),
    "Java Server Pages": (_FOREIGN, "a servlet container"),
    "JavaScript MozPreproc": (_FOREIGN, "a build of Firefox"),
    "K": (_UPSTREAM, "the ngn/k or oK interpreter"),
    "KRL": (_VENDOR, "a KUKA robot or its simulator"),
    "Koka": (_UPSTREAM, "Koka's binary archive"),
    "LFE": (_UPSTREAM, "LFE's source, on Erlang"),
    "LSL": (_VENDOR, "Second Life"),
    "Limbo": (_UPSTREAM, "Inferno's source"),
    "Logtalk": (_UPSTREAM, "Logtalk's archive, on SWI-Prolog"),
    "MQL": (_VENDOR, "MetaTrader on Windows"),
    "MUF": (_FOREIGN, "a Fuzzball MUCK server"),
    "Metal": (_VENDOR, "macOS"),
    "MiniScript": (_UPSTREAM, "its command-line source"),
    "Mirah": (_DEAD, "it ended in 2016, on JRuby"),
    "Mizar": (_UPSTREAM, "Mizar's archive"),
    "Modelica": (_UPSTREAM, "OpenModelica's own Debian repository"),
    "Monkey": (_UPSTREAM, "Monkey X's archive"),
    "MooCode": (_FOREIGN, "a MOO server and its database"),
    "MoonScript": (_UPSTREAM, "moonscript from LuaRocks"),
    "Mosel": (_VENDOR, "FICO Xpress"),
    "MuPAD": (_VENDOR, "MATLAB's Symbolic Toolbox"),
    "NCL": (_NO_ROW, "ncl (package ncl-ncarg)"),
    "NetLinx": (_VENDOR, "AMX controllers"),
    "Nit": (_UPSTREAM, "its source"),
    "Nu": (_UPSTREAM, "its source, on Objective-C"),
    "NuSMV": (_UPSTREAM, "NuSMV's binary archive"),
    "Objdump": "a listing of machine code, not a program: nothing reads it back",
    "Odin": (_UPSTREAM, "Odin's archive, on LLVM"),
    "Opa": (_DEAD, "it ended in 2014"),
    "OpenEdge ABL": (_VENDOR, "Progress OpenEdge"),
    "Ox": (_VENDOR, "OxMetrics"),
    "Oz": (_UPSTREAM, "Mozart 2's Debian package"),
    "PAWN": (_UPSTREAM, "the compiler's archive"),
    "PEG": "a notation with many dialects: there is no one tool that reads it",
    "Papyrus": (_VENDOR, "the Creation Kit of a Bethesda game"),
    "Parrot Internal Representation": (_DEAD, "Parrot ended in 2016"),
    "Pony": (_UPSTREAM, "ponyc's archive"),
    "Praat": (_NO_ROW, "praat --run"),
    "Processing": (_UPSTREAM, "Processing's archive, and a display"),
    "Propeller Spin": (_UPSTREAM, "openspin, and a Propeller to run it"),
    "Pug": (_UPSTREAM, "pug from npm"),
    "PureBasic": (_VENDOR, "PureBasic, whose compiler is sold"),
    "PureScript": (_UPSTREAM, "purs and its package set, offline"),
    "Q": (_VENDOR, "kdb+, which wants a licence"),
    "QVTO": (_FOREIGN, "the Eclipse modelling tools"),
    "RAML": (_UPSTREAM, "a parser from npm"),
    "RConsole": "a transcript of a session with R: its inputs can be run, its outputs cannot",
    "REALbasic": (_VENDOR, "Xojo"),
    "ReasonML": (_UPSTREAM, "reason from opam"),
    "Red": (_UPSTREAM, "Red's 32-bit binary"),
    "RenderScript": (_VENDOR, "Android, which has dropped it"),
    "Ride": (_FOREIGN, "the Waves block chain"),
    "Robot Framework": (_UPSTREAM, "robotframework from PyPI"),
    "Rouge": (_DEAD, "this Lisp on Ruby ended in 2013"),
    "SARL": (_UPSTREAM, "its compiler's jars, built with Maven"),
    "SAS": (_VENDOR, "SAS"),
    "SQF": (_VENDOR, "the Arma games"),
    "Sage": (_NO_ROW, "sagemath (several gigabytes)"),
    "Scilab": (_NO_ROW, "scilab-cli"),
    "Self": (_UPSTREAM, "its 32-bit virtual machine"),
    "ShExC": (_UPSTREAM, "pyshex from PyPI"),
    "Silver": (_UPSTREAM, "Viper's jars"),
    "Singularity": "building an image needs a network and an engine, and a box has neither",
    "Smithy": (_UPSTREAM, "the Smithy command line's archive"),
    "Solidity": (_UPSTREAM, "the solc binary; running needs a virtual machine of Ethereum"),
    "SourcePawn": (_UPSTREAM, "SourceMod's archive"),
    "Squirrel": (_UPSTREAM, "its source"),
    "Stata": (_VENDOR, "Stata"),
    "Tea": (_DEAD, "its template compiler is no longer published"),
    "Transact-SQL": (_FOREIGN, "a Microsoft SQL Server"),
    "Turing": (_UPSTREAM, "OpenTuring, which is for Windows"),
    "TypoScript": (_FOREIGN, "a TYPO3 installation"),
    "USD": (_UPSTREAM, "usd-core from PyPI"),
    "Uno": (_DEAD, "the compiler went with Fuse"),
    "UnrealScript": (_VENDOR, "Unreal Engine 3"),
    "UrWeb": (_UPSTREAM, "its source"),
    "VBScript": (_VENDOR, "Windows"),
    "VimL": (_NO_ROW, "vim -es"),
    "Visual Basic": (_UPSTREAM, "the .NET SDK, with a project file"),
    "Vue": (_UPSTREAM, "vue's template compiler from npm"),
    "Web IDL": (_UPSTREAM, "webidl2 from npm"),
    "Whiley": (_UPSTREAM, "its compiler's jars"),
    "X10": (_UPSTREAM, "its archive of 2019, for Java 8"),
    "XBase": (_UPSTREAM, "Harbour's source"),
    "XC": (_VENDOR, "the tools of XMOS processors"),
    "XML Lasso": (_VENDOR, "Lasso Server"),
    "Xtend": (_UPSTREAM, "its compiler's jars"),
    "Xtlang": (_UPSTREAM, "Extempore's archive"),
    "Zeek": (_UPSTREAM, "Zeek's own Debian repository"),
    "Zephir": (_UPSTREAM, "its compiler from PHP's Composer"),
    "Zimpl": (_UPSTREAM, "SCIP's archive"),
    "eC": (_UPSTREAM, "Ecere's source"),
    "ooc": (_DEAD, "rock, its compiler, has not been released since 2015"),
}


def names() -> tuple[str, ...]:
    """All 338 names, sorted."""
    return tuple(sorted(_TABLE))


def resolve(name: str) -> Resolution:
    """What can be done with the language called `name`, spelled as in the list, in any case.

    Raises DataError with the nearest names where the list has no such name.
    """
    found = _TABLE.get(name) or _BY_LOWER_CASE.get(name.strip().lower())
    if found is None:
        near = difflib.get_close_matches(name, _TABLE, n=3)
        raise DataError(f"no language {name!r} is listed" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    return found


def counts() -> dict[Kind, int]:
    """How many names there are of each kind."""
    found = Counter(resolution.kind for resolution in _TABLE.values())
    return {kind: found[kind] for kind in Kind}


def _resolutions() -> Iterator[Resolution]:
    for row, listed in _RUNS.items():
        for name in listed:
            note = _NOTES.get(name) or LANGUAGES[row].quirk
            yield Resolution(name=name, kind=Kind.RUNS, row=row, sentence=note)
    for name, how in _CHECKED.items():
        yield Resolution(name=name, kind=Kind.CHECKED, sentence=how)
    for name, what in _MISSING.items():
        sentence = what if isinstance(what, str) else what[0].format(what[1])
        yield Resolution(name=name, kind=Kind.MISSING, sentence=sentence)


_TABLE: dict[str, Resolution] = {}
for _resolution in _resolutions():
    if _resolution.name in _TABLE:
        raise ValueError(f"{_resolution.name} stands in two of the tables")
    _TABLE[_resolution.name] = _resolution
_BY_LOWER_CASE = {name.lower(): resolution for name, resolution in _TABLE.items()}
