"""Rows of the languages that a virtual machine runs: the JVM, Mono and .NET, Node, BEAM.

Such a machine reserves far more address space than it uses and starts threads of its own; where it is compiled for,
one archive or module enters the box of a run.
"""

from __future__ import annotations

from rewards.language_row import MANAGED_COMPILE_LIMITS, PATIENT_COMPILE_LIMITS, Language

# One collector thread and one processor make the processor time of a run repeat; 64 MiB of stack is for recursion.
_JVM = ("/usr/bin/java", "-XX:+UseSerialGC", "-XX:ActiveProcessorCount=1", "-XX:-UsePerfData", "-Xss64m", "-Xmx768m")
_JVM_THREADS = 48
_JAVAC = "-J-XX:+UseSerialGC -J-XX:TieredStopAtLevel=1 -J-XX:-UsePerfData -proc:none -encoding UTF-8 -nowarn"
_JAR = "/usr/bin/jar --create --no-compress --file {artefact} -C classes ."
_COMPILER_JVM = 'JAVA_OPTS="-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -Xss16m"'
_BEAM = "+S 1:1 +SDcpu 1:1 +SDio 1 +A 1 +sbwt none"

MANAGED: tuple[Language, ...] = (
    Language(
        name="java",
        package="openjdk-17-jdk-headless",
        aliases=("java17", "jdk"),
        suffix=".java",
        file="Main.java",
        artefact="program.jar",
        compile=("/bin/sh", "-c", f"/usr/bin/javac {_JAVAC} -d classes {{source}} && {_JAR}"),
        compile_limits=MANAGED_COMPILE_LIMITS,
        run=(*_JVM, "-cp", "{artefact}", "Main"),
        needs=("/usr/bin/javac", "/usr/bin/jar"),
        start_cpu_s=0.3,
        address_space=False,
        threads=_JVM_THREADS,
        quirk="The class with the main method is called Main, and no other class of the answer is public.",
    ),
    Language(
        name="kotlin",
        package="kotlin openjdk-17-jdk-headless",
        aliases=("kt", "kts"),
        suffix=".kt",
        file="Main.kt",
        artefact="program.jar",
        compile=("/usr/bin/kotlinc", "-nowarn", "-include-runtime", "-d", "{artefact}", "{source}"),
        compile_limits=PATIENT_COMPILE_LIMITS,
        run=(*_JVM, "-jar", "{artefact}"),
        start_cpu_s=0.3,
        address_space=False,
        threads=_JVM_THREADS,
        quirk="Kotlin 1.3: no trailing commas, no fun interfaces, no readln().",
    ),
    Language(
        name="scala",
        package="scala openjdk-17-jdk-headless",
        aliases=("scala2",),
        suffix=".scala",
        file="Main.scala",
        artefact="program.jar",
        compile=(
            "/bin/sh",
            "-c",
            f"mkdir classes && {_COMPILER_JVM} /usr/bin/scalac -nowarn -d classes {{source}} && {_JAR}",
        ),
        compile_limits=PATIENT_COMPILE_LIMITS,
        run=(*_JVM, "-cp", "{artefact}:/usr/share/java/scala-library.jar", "Main"),
        needs=("/usr/bin/scalac", "/usr/bin/jar"),
        start_cpu_s=0.6,
        address_space=False,
        threads=_JVM_THREADS,
        quirk="Scala 2.11; the object with the main method is called Main.",
    ),
    Language(
        name="groovy",
        package="groovy openjdk-17-jdk-headless",
        aliases=("gvy",),
        suffix=".groovy",
        file="Main.groovy",
        artefact="program.jar",
        compile=("/bin/sh", "-c", f"mkdir classes && {_COMPILER_JVM} /usr/bin/groovyc -d classes {{source}} && {_JAR}"),
        compile_limits=PATIENT_COMPILE_LIMITS,
        run=(*_JVM, "-cp", "{artefact}:/usr/share/java/groovy-all.jar", "Main"),
        needs=("/usr/bin/groovyc", "/usr/bin/jar"),
        start_cpu_s=1.5,
        address_space=False,
        threads=_JVM_THREADS,
        quirk="Groovy 2.4: no lambdas with arrows, no switch expressions.",
    ),
    Language(
        name="clojure",
        package="clojure openjdk-17-jre-headless",
        aliases=("clj",),
        suffix=".clj",
        run=(
            *_JVM,
            *("-cp", "/usr/share/java/clojure.jar:/usr/share/java/spec.alpha.jar:/usr/share/java/core.specs.alpha.jar"),
            *("clojure.main", "{source}"),
        ),
        needs=("/usr/bin/clojure",),
        start_cpu_s=3.0,
        address_space=False,
        threads=_JVM_THREADS,
        quirk="Top-level forms run; a -main that nobody calls does not.",
    ),
    Language(
        name="csharp",
        package="mono-mcs mono-runtime libmono-system-core4.0-cil libmono-system-numerics4.0-cil",
        aliases=("c#", "cs", "c-sharp"),
        suffix=".cs",
        artefact="program.exe",
        compile=("/usr/bin/mcs", "-warn:0", "-r:System.Numerics.dll", "-out:{artefact}", "{source}"),
        compile_limits=MANAGED_COMPILE_LIMITS,
        run=("/usr/bin/mono", "{artefact}"),
        environment=("MONO_CRASH_NOFILE=1", "MONO_DISABLE_SHARED_AREA=1"),
        start_cpu_s=0.2,
        address_space=False,
        threads=16,
        status_tells=False,
        quirk=(
            "C# 7 on Mono, which may leave with status 0 after it ran out of memory or an assertion failed: "
            "a failure is also what writes 'Unhandled Exception', 'Fail:' or a crash report to standard error."
        ),
    ),
    Language(
        name="fsharp",
        archive=(
            "https://builds.dotnet.microsoft.com/dotnet/Sdk/8.0.404/dotnet-sdk-8.0.404-linux-x64.tar.gz "
            "unpacked to /usr/local/dotnet"
        ),
        aliases=("f#", "fs", "fsx"),
        suffix=".fsx",
        run=("/usr/local/dotnet/dotnet", "fsi", "--quiet", "--nologo", "--exec", "{source}"),
        environment=(
            *("DOTNET_CLI_TELEMETRY_OPTOUT=1", "DOTNET_NOLOGO=1", "DOTNET_SKIP_FIRST_TIME_EXPERIENCE=1"),
            *("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1", "DOTNET_GENERATE_ASPNET_CERTIFICATE=false"),
        ),
        start_cpu_s=6.0,
        address_space=False,
        threads=64,
        quirk="A script: what stands at the top level runs, and an [<EntryPoint>] does not.",
    ),
    Language(
        name="powershell",
        archive=(
            "https://github.com/PowerShell/PowerShell/releases/download/v7.4.6/powershell-7.4.6-linux-x64.tar.gz "
            "unpacked to /usr/local/powershell"
        ),
        sha256="6f6015203c47806c5cc444c19d8ed019695e610fbd948154264bf9ca8e157561",
        aliases=("pwsh", "ps1"),
        suffix=".ps1",
        run=("/usr/local/powershell/pwsh", "-NoProfile", "-NonInteractive", "-NoLogo", "-File", "{source}"),
        environment=(
            *("POWERSHELL_TELEMETRY_OPTOUT=1", "POWERSHELL_UPDATECHECK=Off"),
            "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1",
        ),
        start_cpu_s=1.5,
        address_space=False,
        threads=64,
        status_tells=False,
        quirk="An error that does not stop the script is only written to standard error; the status stays 0.",
    ),
    Language(
        name="javascript",
        package="nodejs",
        aliases=("js", "node", "nodejs", "mjs", "ecmascript"),
        suffix=".js",
        run=("/usr/bin/node", "{source}"),
        start_cpu_s=0.2,
        address_space=False,
        threads=24,
        quirk="A CommonJS script: require works, a static import does not.",
    ),
    Language(
        name="typescript",
        package="esbuild nodejs",
        aliases=("ts",),
        suffix=".ts",
        artefact="program.js",
        compile=(
            *("/usr/bin/esbuild", "{source}", "--outfile={artefact}", "--platform=node", "--format=cjs"),
            *("--target=node18", "--log-level=warning", "--color=false"),
        ),
        compile_limits=MANAGED_COMPILE_LIMITS,
        run=("/usr/bin/node", "{artefact}"),
        start_cpu_s=0.2,
        address_space=False,
        threads=24,
        quirk="Types are erased, not checked: a type error is not a compile error here.",
    ),
    Language(
        name="coffeescript",
        package="coffeescript nodejs",
        aliases=("coffee", "coffee-script"),
        suffix=".coffee",
        artefact="program.js",
        compile=("/bin/sh", "-c", "/usr/bin/coffee --print --compile {source} > {artefact}"),
        compile_limits=MANAGED_COMPILE_LIMITS,
        run=("/usr/bin/node", "{artefact}"),
        needs=("/usr/bin/coffee",),
        start_cpu_s=0.2,
        address_space=False,
        threads=24,
    ),
    Language(
        name="literate coffeescript",
        package="coffeescript nodejs",
        aliases=("litcoffee",),
        suffix=".litcoffee",
        artefact="program.js",
        compile=("/bin/sh", "-c", "/usr/bin/coffee --literate --print --compile {source} > {artefact}"),
        compile_limits=MANAGED_COMPILE_LIMITS,
        run=("/usr/bin/node", "{artefact}"),
        needs=("/usr/bin/coffee",),
        start_cpu_s=0.2,
        address_space=False,
        threads=24,
        quirk="What is not indented is prose.",
    ),
    Language(
        name="erlang",
        package="erlang-base",
        aliases=("erl",),
        suffix=".erl",
        file="main.erl",
        artefact="main.beam",
        compile=("/usr/bin/erlc", "{source}"),
        compile_limits=MANAGED_COMPILE_LIMITS,
        run=(
            *("/usr/bin/erl", *_BEAM.split(), "-noshell", "-pa", ".", "-eval"),
            "try main:main() of _ -> init:stop() "
            'catch C:E:S -> io:format(standard_error, "~p: ~p~n~p~n", [C, E, S]), halt(1) end.',
        ),
        environment=("ERL_CRASH_DUMP_BYTES=0",),
        start_cpu_s=0.4,
        address_space=False,
        threads=32,
        quirk="The module is called main and exports main/0.",
    ),
    Language(
        name="elixir",
        package="elixir",
        aliases=("ex", "exs"),
        suffix=".exs",
        run=("/usr/bin/elixir", "{source}"),
        environment=(f"ELIXIR_ERL_OPTIONS={_BEAM}", "ERL_CRASH_DUMP_BYTES=0"),
        start_cpu_s=1.0,
        address_space=False,
        threads=32,
    ),
)
