<?php
// Runs inside a box, once per test; what it reads and writes is described in driver_javascript.js.
// The answer is required at the top level, where its variables are global; an answer cannot redeclare what this calls.
namespace assay_driver;

final class Driver
{
    private array $tokens;
    private int $at = 4;
    public string $file;
    public string $entry;
    private string $mark;
    private $channel;
    public array $values = [];
    private bool $loading = true;

    public function __construct()
    {
        $this->tokens = \explode("\n", \stream_get_contents(\STDIN));
        \fclose(\STDIN);
        $this->channel = \fopen('php://fd/3', 'wb');
        [$this->mark, $this->file, $this->entry, $count] = $this->tokens;
        for ($left = (int) $count; $left > 0; $left--) {
            $this->values[] = $this->read();
        }
    }

    private function read(): mixed
    {
        $token = $this->tokens[$this->at++];
        $rest = \substr($token, 1);
        switch ($token[0]) {
            case 'n': return null;
            case 'b': return $rest === '1';
            case 'i': return (int) $rest;
            case 'f': return \unpack('E', \hex2bin($rest))[1];
            case 's': return \hex2bin($rest);
        }
        $value = [];
        for ($left = (int) $rest; $left > 0; $left--) {
            if ($token[0] === 'l') {
                $value[] = $this->read();
            } else {
                $key = $this->read();
                $value[$key] = $this->read();
            }
        }
        return $value;
    }

    private function encoded(mixed $value, int $depth): string
    {
        if ($depth > 200) return '["O","too deep"]';
        if ($value === null) return '["N"]';
        if (\is_bool($value)) return $value ? '["b",1]' : '["b",0]';
        if ($value === \PHP_INT_MIN) return '["i","-8000000000000000"]';
        if (\is_int($value)) return '["i","' . ($value < 0 ? '-' . \dechex(-$value) : \dechex($value)) . '"]';
        if (\is_float($value)) return '["D","' . \bin2hex(\pack('E', $value)) . '"]';
        if (\is_string($value)) return '["u","' . \bin2hex($value) . '"]';
        $object = \is_object($value) && \get_class($value) === 'stdClass';
        if ($object) $value = \get_object_vars($value);
        if (!\is_array($value)) return '["O","' . \gettype($value) . '"]';
        $list = !$object && \array_is_list($value);
        $parts = [];
        foreach ($value as $key => $item) {
            $text = $this->encoded($item, $depth + 1);
            $parts[] = $list ? $text : '[["u","' . \bin2hex((string) $key) . '"],' . $text . ']';
        }
        return ($list ? '["l",[' : '["d",[') . \implode(',', $parts) . ']]';
    }

    private function say(string $kind, string $text): never
    {
        $data = $this->mark . "\n" . $kind . $text;
        while ($data !== '' && ($done = \fwrite($this->channel, $data)) > 0) {
            $data = \substr($data, $done);
        }
        \fclose($this->channel);
        exit(0);
    }

    public function failed(\Throwable $error): never
    {
        $text = \get_class($error) . ': ' . $error->getMessage();
        $text = \preg_replace('/[^ !#-\[\]-~]/', '?', \substr($text, 0, 500));
        $this->say($error instanceof \ParseError ? 'C' : 'E', '"' . $text . '"');
    }

    // A function of the answer's own: the global one, the one of some namespace, one in a variable, a method of a class.
    // Where there is none, the call says so.
    private function found(): mixed
    {
        $wanted = \strtolower($this->entry);
        $theirs = \get_defined_functions()['user'];
        if (\in_array($wanted, $theirs, true)) return $this->entry;
        foreach ($theirs as $name) {
            if (\str_ends_with($name, '\\' . $wanted)) return $name;
        }
        $held = $GLOBALS[$this->entry] ?? null;
        if ($held instanceof \Closure) return $held;
        foreach (\get_declared_classes() as $class) {
            $one = new \ReflectionClass($class);
            if ($one->isInternal() || $class === self::class || !$one->hasMethod($wanted)) continue;
            if ($one->getMethod($wanted)->isStatic()) return [$class, $this->entry];
            if ($one->isInstantiable()) return [new $class(), $this->entry];
        }
        return $this->entry;
    }

    // A program that ends itself is loaded as well; one that a fatal error ended is not.
    public function ended(): void
    {
        $fatal = \E_ERROR | \E_PARSE | \E_CORE_ERROR | \E_COMPILE_ERROR | \E_USER_ERROR;
        if ($this->loading && !((\error_get_last()['type'] ?? 0) & $fatal)) $this->call();
    }

    public function call(): never
    {
        $this->loading = false;
        try {
            $this->say('V', $this->encoded(($this->found())(...$this->values), 0));
        } catch (\Throwable $error) {
            $this->failed($error);
        }
    }
}

// In a function of its own the driver would be out of the answer's reach, and the answer's variables out of its functions'.
$GLOBALS['assay_driver'] = new Driver();
\register_shutdown_function([$GLOBALS['assay_driver'], 'ended']);
try {
    require __DIR__ . '/' . $GLOBALS['assay_driver']->file;
} catch (\Throwable $assay_error) {
    $GLOBALS['assay_driver']->failed($assay_error);
}
$GLOBALS['assay_driver']->call();
